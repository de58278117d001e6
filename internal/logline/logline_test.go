package logline

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// written is what was logged.
type written struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

// take returns the lines since the last call.
func (w *written) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.b.Reset()
	return strings.Split(strings.TrimSuffix(w.b.String(), "\n"), "\n")
}

func newLog(w *written, redact func(string) string) (*slog.Logger, *Handler) {
	h := New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}), redact)
	return slog.New(h), h
}

// TestLinesAreBounded: however often something happens, in whatever form, the log has a
// bounded number of lines, and says how many it lacks.
func TestLinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w written
		log, h := newLog(&w, nil)
		for i := range 5000 {
			log.Error("a name does not exist", "name", fmt.Sprintf("push%d.example.net", i))
			log.With("backend", i).WithGroup("g").Warn("too many dead letters", "n", i)
		}
		if n := len(w.take()); n != 2*MaxLines || h.Held() != 10000-2*MaxLines {
			t.Errorf("%d lines, %d were held back", n, h.Held())
		}
		log.Info("another message")
		if got := w.take(); len(got) != 1 || !strings.Contains(got[0], "another message") {
			t.Errorf("%q", got)
		}
		time.Sleep(Window)
		synctest.Wait()
		said := strings.Join(w.take(), "\n")
		for _, part := range []string{`level=ERROR`, `message="a name does not exist" lines=4980`, `level=WARN`, `message="too many dead letters" lines=4980 within=1m0s`} {
			if !strings.Contains(said, part) {
				t.Errorf("no %s in\n%s", part, said)
			}
		}
		if strings.Count(said, "\n") != 1 {
			t.Errorf("not two lines:\n%s", said)
		}
		log.Error("a name does not exist")
		if got := w.take(); len(got) != 1 || !strings.Contains(got[0], "a name") {
			t.Errorf("after the window: %q", got)
		}
		for i := range 100 {
			log.Debug("asked for", "i", i)
		}
		if n := len(w.take()); n != 100 {
			t.Errorf("%d debug lines", n)
		}
	})
}

// TestFlush: at the end of the program the log says once what was held back.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w written
		log, h := newLog(&w, nil)
		for range MaxLines + 7 {
			log.Warn("many")
		}
		log.Info("one")
		w.take()
		h.Flush()
		if got := w.take(); len(got) != 1 || !strings.Contains(got[0], "level=WARN") || !strings.Contains(got[0], "message=many lines=7") {
			t.Errorf("%q", got)
		}
		time.Sleep(2 * Window)
		synctest.Wait()
		h.Flush()
		if got := w.take(); len(got) != 1 || got[0] != "" {
			t.Errorf("once more: %q", got)
		}
	})
}

// TestMessagesAreBounded: messages that are no constants share a bound.
func TestMessagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w written
		log, h := newLog(&w, nil)
		kept := func() int {
			h.mu.Lock()
			defer h.mu.Unlock()
			return len(h.messages)
		}
		for i := range 5 * maxMessages {
			log.Warn(fmt.Sprint("message ", i))
		}
		if n := len(w.take()); n != maxMessages+MaxLines || kept() != maxMessages+1 {
			t.Errorf("%d lines, %d messages are kept", n, kept())
		}
		time.Sleep(Window)
		synctest.Wait()
		if kept() != 0 {
			t.Errorf("%d messages are kept", kept())
		}
	})
}

// TestLongestLine: no value makes a long line, whatever its type.
func TestLongestLine(t *testing.T) {
	long := strings.Repeat("ä", 1<<20)
	for name, attr := range map[string]slog.Attr{
		"text":    slog.String("a", long),
		"error":   slog.Any("err", fmt.Errorf("condition: %w", errors.New(long))),
		"list":    slog.Any("list", []string{long, long}),
		"group":   slog.Group("g", slog.Group("h", "a", long)),
		"bytes":   slog.Any("b", []byte(long)),
		"struct":  slog.Any("s", struct{ Text string }{long}),
		"a stack": slog.String("stack", long),
	} {
		var w written
		log, _ := newLog(&w, nil)
		log.Error("m", attr)
		log.With(attr).Error("m")
		for _, line := range w.take() {
			if most := MaxStack + 200; len(line) > most || name != "a stack" && len(line) > MaxValue+200 || !strings.Contains(line, " bytes)") {
				t.Errorf("%s: %d bytes: %.100s", name, len(line), line)
			}
		}
	}
	var w written
	log, _ := newLog(&w, nil)
	log.Error(long)
	if line := w.take()[0]; len(line) > MaxValue+200 {
		t.Errorf("a message: %d bytes", len(line))
	}
	log.Info("m", "n", 1, "d", time.Second, "hosts", []string{"a", "b"}, "err", error(nil))
	if line := w.take()[0]; !strings.HasSuffix(line, `msg=m n=1 d=1s hosts="[a b]" err=<nil>`) {
		t.Error(line)
	}
}

// TestSecretsAreLeftOut: of what a peer has repeated.
func TestSecretsAreLeftOut(t *testing.T) {
	var w written
	log, _ := newLog(&w, strings.NewReplacer("hunter2-secret", "***").Replace)
	log.Error("m", "err", errors.New("login user:hunter2-secret refused"), "text", "hunter2-secret", slog.Group("g", "a", "hunter2-secret"), "list", []string{"hunter2-secret"})
	log.With("a", "hunter2-secret").Error("m")
	for _, line := range w.take() {
		if strings.Contains(line, "hunter2") || !strings.Contains(line, "***") {
			t.Error(line)
		}
	}
}

// TestSecretInAMessage: libraries write messages that are not constants.
func TestSecretInAMessage(t *testing.T) {
	var w written
	log, _ := newLog(&w, func(s string) string { return strings.ReplaceAll(s, "hunter2", "…") })
	log.Warn("login of joe hunter2 failed")
	if text := strings.Join(w.take(), ""); !strings.Contains(text, "login of joe") || strings.Contains(text, "hunter2") {
		t.Error(text)
	}
}
