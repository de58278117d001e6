// Package complain tells the log of errors that repeat themselves, once in a while: what
// users or a provider bring about must not fill it.
package complain

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Every is how often the log is told the same.
const Every = time.Minute

// kept bounds what is told apart: a push service of Web Push, which any user may name,
// chooses what it answers.
const kept = 32

// Log writes errors to a log. It is safe for concurrent use.
type Log struct {
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

// New returns a Log that writes to log, by that clock.
func New(log *slog.Logger, now func() time.Time) *Log {
	return &Log{log: log, now: now, all: make(map[complaint]*said)}
}

// Add logs the message with the error unless it was logged within the minute. The
// attribute more says how many were not logged since then.
func (c *Log) Add(level slog.Level, message string, err error, attrs ...slog.Attr) {
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
func (c *Log) due(key complaint) (more int, ok bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all[key] == nil && len(c.all) >= kept {
		c.forgetLocked(now)
		if len(c.all) >= kept {
			key.cause = "" // all that come on top count as one
		}
	}
	s := c.all[key]
	if s == nil {
		c.all[key] = &said{at: now}
		return 0, true
	}
	if now.Sub(s.at) < Every {
		s.since++
		return 0, false
	}
	more, s.at, s.since = s.since, now, 0
	return more, true
}

// forgetLocked forgets what has not been said for a while.
func (c *Log) forgetLocked(now time.Time) {
	for key, s := range c.all {
		if now.Sub(s.at) >= Every {
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
