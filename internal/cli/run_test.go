package cli

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

// A SIGHUP is answered in the log and ends nothing.
func TestHangups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		ctx, end := context.WithCancel(t.Context())
		hangups := make(chan os.Signal)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			answerHangups(ctx, hangups, slog.New(slog.NewTextHandler(&logged, nil)))
		}()
		hangups <- syscall.SIGHUP
		hangups <- syscall.SIGHUP
		end()
		<-ended
		if n := strings.Count(logged.String(), "SIGHUP: the configuration is not read again"); n != 2 || !strings.Contains(logged.String(), "restart eventpusher") {
			t.Errorf("logged:\n%s", &logged)
		}
	})
}
