package devices

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/complain"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/internal/jid"
)

// logged is what a log was told, line by line, without the time.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// lines returns what was logged since the last call.
func (l *logged) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return strings.Split(strings.TrimSuffix(l.b.String(), "\n"), "\n")
}

// TestRefusalsAreLogged once a minute for each kind of error, with how many there were
// meanwhile; a device that is dead is nothing to be told of.
func TestRefusalsAreLogged(t *testing.T) {
	var log logged
	f := newFixture(t, func(o *Options) { o.Burst, o.Log = 100, log.logger() })
	now := f.now
	f.providers[providerKey{"chat", notify.FCM}].complaints = complain.New(f.o.Log, func() time.Time { return now })
	n := 0
	deliver := func(answer error) {
		t.Helper()
		f.google.answers(func(context.Context, notify.Target) error { return answer })
		n++
		if err := f.Deliver(t.Context(), f.android.Node, message(fmt.Sprint(n), f.now.Add(time.Duration(n)*time.Second))); err == nil {
			t.Fatal("was taken")
		}
	}
	// As senders have it: the device first, which differs.
	refused := func(device int, text string) error {
		return backends.Permanent(fmt.Errorf("fcm:%d: %w: check it", device, errors.New(text)))
	}
	const line = `level=WARN msg="push: a provider refuses a notification for good; it is dropped, the device stays" provider=chat/fcm err=`
	for i := range 3 {
		deliver(refused(i, "answered 403"))
	}
	deliver(refused(4, "answered 400"))
	deliver(backends.Permanent(notify.ErrExpired))
	if diff := cmp.Diff([]string{line + `"fcm:0: answered 403: check it"`, line + `"fcm:4: answered 400: check it"`}, log.lines()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	now = now.Add(complain.Every)
	deliver(refused(5, "answered 403"))
	deliver(refused(6, "answered 400"))
	if diff := cmp.Diff([]string{line + `"fcm:5: answered 403: check it" more=2`, line + `"fcm:6: answered 400: check it"`}, log.lines()); diff != "" {
		t.Errorf("a minute later (-want +got):\n%s", diff)
	}
	for i := range 3 {
		deliver(backends.Paused(errors.New("answered 401")))
		deliver(&notify.DeadError{Doubtful: true, Err: fmt.Errorf("device %d: %w", i, errors.New("answered 410"))})
	}
	got := log.lines()
	if len(got) != 2 || !strings.Contains(got[0], `level=ERROR msg="push: a provider refuses our access`) || !strings.Contains(got[1], "err=\"device 0: answered 410\"") {
		t.Errorf("no access and doubts: %q", got)
	}
	deliver(&notify.DeadError{Err: errors.New("answered 404")})
	if got := log.lines(); got[0] != "" {
		t.Errorf("a device that is dead: %q", got)
	}
}

// TestFailureIsLogged with its cause, and of which application.
func TestFailureIsLogged(t *testing.T) {
	var log logged
	apple := &sender{}
	apple.answers(func(context.Context, notify.Target) error {
		return errors.New("https://api.push.apple.com: x509: certificate signed by unknown authority")
	})
	f := newFixture(t, func(o *Options) {
		o.Burst, o.Log = 100, log.logger()
		o.Apps[0].senders[notify.APNs] = apple
	})
	var devices []store.Credentials
	for i := range 3 {
		c, err := f.store.Put(t.Context(), store.Device{Owner: jid.JID(fmt.Sprint("user", i, "@example.org")), App: "chat", Target: notify.Target{Kind: notify.APNs, Address: config.Secret(fmt.Sprint("f00", i))}}, f.now)
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, c)
	}
	for i := range 10 {
		if err := f.Deliver(t.Context(), devices[i%3].Node, message(fmt.Sprint(i), f.now.Add(time.Duration(i)*time.Second))); waits(err) == 0 {
			t.Fatal(err)
		}
	}
	want := []string{`level=WARN msg="push: a destination fails; its notifications wait" destination="apns chat" ` +
		`err="https://api.push.apple.com: x509: certificate signed by unknown authority"`}
	if diff := cmp.Diff(want, log.lines()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
