package cli

import (
	stdlog "log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// libraryEvery is how often a line of a library is logged; libraryText is how much of it.
const (
	libraryEvery = time.Minute
	libraryText  = 120
)

// libraryLog takes what libraries write to Go's standard logger, such as net/http of a
// receiver that sends something unasked. They quote what they have read, which may be the
// text of users or a secret: all from the first quote on is left out. It is safe for
// concurrent use.
type libraryLog struct {
	to *slog.Logger

	mu   sync.Mutex
	next time.Time
	held int // lines since the last one that was logged
}

// Write implements io.Writer, a line each.
func (l *libraryLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.next) {
		l.held++
		return len(line), nil
	}
	text := strings.TrimSpace(string(line))
	if i := strings.IndexAny(text, "\"'`\n"); i >= 0 {
		text = strings.TrimSpace(text[:i])
	}
	text = strings.ToValidUTF8(text[:min(len(text), libraryText)], "")
	l.to.Warn("a library has logged something", "text", text, "not_logged_before", l.held)
	l.next, l.held = now.Add(libraryEvery), 0
	return len(line), nil
}

// logLibraries makes Go's standard logger write to log until the function that it returns
// is called.
func logLibraries(log *slog.Logger) (stop func()) {
	w, flags := stdlog.Writer(), stdlog.Flags()
	stdlog.SetFlags(0)
	stdlog.SetOutput(&libraryLog{to: log})
	return func() {
		stdlog.SetOutput(w)
		stdlog.SetFlags(flags)
	}
}
