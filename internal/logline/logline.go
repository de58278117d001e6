// Package logline bounds the log: what strangers bring about must not fill it, and no secret
// that a peer repeats gets into it.
package logline

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Window is the time over which lines are counted.
	Window = time.Minute
	// MaxLines is how many lines with the same message are written in a Window. Messages are
	// constants, so their number bounds the log.
	MaxLines = 20
	// MaxValue is how many bytes of an attribute's value are written, and of a message.
	MaxValue = 1 << 10
	// MaxStack is the same for a stack, which only the program itself makes.
	MaxStack = 16 << 10
	// maxMessages bounds what is told apart: libraries write messages that are not constants.
	maxMessages = 1024
)

// stackKey is the key of attributes that have a stack.
const stackKey = "stack"

// Handler is a slog.Handler that hands on to another one at most MaxLines lines with the
// same message in a Window. When the Window is over, one more line says how many were held
// back. Long values are cut. Debug lines, which an operator has asked for, are cut and not
// counted. It is safe for concurrent use.
type Handler struct {
	to     slog.Handler
	redact func(string) string
	*book
}

// book is what a Handler and those that were made of it share.
type book struct {
	root slog.Handler // for what is said about lines that were held back
	held atomic.Uint64

	mu       sync.Mutex
	messages map[string]*lines
}

// lines are those with one message, since the beginning of a Window.
type lines struct {
	level         slog.Level // of the first
	written, held int
	window        *time.Timer
}

// New returns a Handler in front of another one. redact returns a value without the secrets
// in it; nil leaves values as they are.
func New(to slog.Handler, redact func(string) string) *Handler {
	if redact == nil {
		redact = func(s string) string { return s }
	}
	return &Handler{to: to, redact: redact, book: &book{root: to, messages: make(map[string]*lines)}}
}

// Held returns how many lines were held back.
func (h *Handler) Held() uint64 { return h.held.Load() }

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.to.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	attrs = slices.Clone(attrs)
	for i := range attrs {
		attrs[i] = h.cut(attrs[i])
	}
	return &Handler{to: h.to.WithAttrs(attrs), redact: h.redact, book: h.book}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{to: h.to.WithGroup(name), redact: h.redact, book: h.book}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level > slog.LevelDebug && !h.admit(r.Message, r.Level) {
		return nil
	}
	short := slog.NewRecord(r.Time, r.Level, shorten(h.redact(r.Message), MaxValue), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		short.AddAttrs(h.cut(a))
		return true
	})
	return h.to.Handle(ctx, short)
}

// cut returns the attribute as it is written.
func (h *Handler) cut(a slog.Attr) slog.Attr {
	most := MaxValue
	if a.Key == stackKey {
		most = MaxStack
	}
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(shorten(h.redact(a.Value.String()), most))
	case slog.KindAny:
		text := fmt.Sprintf("%+v", a.Value.Any())
		if clean := h.redact(text); clean != text || len(text) > most {
			a.Value = slog.StringValue(shorten(clean, most))
		}
	case slog.KindGroup:
		group := slices.Clone(a.Value.Group())
		for i := range group {
			group[i] = h.cut(group[i])
		}
		a.Value = slog.GroupValue(group...)
	}
	return a
}

func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + fmt.Sprintf("… (%d bytes)", len(text))
}

// admit counts a line, and reports whether it is written.
func (b *book) admit(message string, level slog.Level) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.messages[message] == nil && len(b.messages) >= maxMessages {
		message = ""
	}
	l := b.messages[message]
	if l == nil {
		l = &lines{level: level}
		l.window = time.AfterFunc(Window, func() { b.end(message, l) })
		b.messages[message] = l
	}
	if l.written >= MaxLines {
		l.held++
		b.held.Add(1)
		return false
	}
	l.written++
	return true
}

// Flush ends all Windows, so that the log says what was held back before the program ends.
func (h *Handler) Flush() {
	h.mu.Lock()
	open := maps.Clone(h.messages)
	h.mu.Unlock()
	for _, message := range slices.Sorted(maps.Keys(open)) {
		h.end(message, open[message])
	}
}

// end ends the Window of a message, unless it has ended.
func (b *book) end(message string, l *lines) {
	b.mu.Lock()
	open := b.messages[message] == l
	if open {
		delete(b.messages, message)
	}
	b.mu.Unlock()
	l.window.Stop()
	if !open || l.held == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), l.level, "lines were held back, since there were too many with one message", 0)
	r.AddAttrs(slog.String("message", shorten(message, MaxValue)), slog.Int("lines", l.held), slog.Duration("within", Window))
	_ = b.root.Handle(context.Background(), r) // nothing could be told of it
}
