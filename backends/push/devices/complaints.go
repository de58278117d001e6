package devices

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// complainEvery is how often the log says the same of a provider.
	complainEvery = time.Minute
	// complaintsKept bounds what is told apart: a push service of Web Push, which any
	// user may name, chooses what it answers.
	complaintsKept = 32
)

// complaints are what a provider says again and again, of which the log is told once in
// a while: a wrong key makes it say so of every notification.
type complaints struct {
	log *slog.Logger
	now func() time.Time

	mu  sync.Mutex
	all map[complaint]*said
}

// complaint is a kind of error: the line of the log, and what is at the bottom of the
// error. Nothing in it is about one device.
type complaint struct{ message, cause string }

type said struct {
	at    time.Time
	since int // how often it was kept from the log since
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, now: time.Now, all: make(map[complaint]*said)}
}

// add logs the message with the error unless it was logged within the minute. The
// attribute more says how many were not logged since then.
func (c *complaints) add(level slog.Level, message string, err error, attrs ...slog.Attr) {
	more, ok := c.due(complaint{message, bottom(err)})
	if !ok {
		return
	}
	attrs = append(attrs, slog.Any("err", err))
	if more > 0 {
		attrs = append(attrs, slog.Int("more", more))
	}
	c.log.LogAttrs(context.Background(), level, message, attrs...)
}

// due reports whether a complaint is to be logged, and how many were not since the last.
func (c *complaints) due(key complaint) (more int, ok bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all[key] == nil && len(c.all) >= complaintsKept {
		c.forgetLocked(now)
		if len(c.all) >= complaintsKept {
			key.cause = "" // all that come on top count as one
		}
	}
	s := c.all[key]
	if s == nil {
		c.all[key] = &said{at: now}
		return 0, true
	}
	if now.Sub(s.at) < complainEvery {
		s.since++
		return 0, false
	}
	more, s.at, s.since = s.since, now, 0
	return more, true
}

// forgetLocked forgets what has not been said for a while.
func (c *complaints) forgetLocked(now time.Time) {
	for key, s := range c.all {
		if now.Sub(s.at) >= complainEvery {
			delete(c.all, key)
		}
	}
}

// bottom returns the text of the error that the others are wrapped around.
func bottom(err error) string {
	for {
		switch inner := err.(type) {
		case interface{ Unwrap() error }:
			if inner.Unwrap() == nil {
				return err.Error()
			}
			err = inner.Unwrap()
		case interface{ Unwrap() []error }:
			if len(inner.Unwrap()) == 0 {
				return err.Error()
			}
			err = inner.Unwrap()[0]
		default:
			return err.Error()
		}
	}
}
