// Package journal counts what became of notifications, and remembers the latest decisions
// about each user.
package journal

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"eventpusher/internal/jid"
)

// Journal is safe for concurrent use.
type Journal struct {
	log     *slog.Logger
	now     func() time.Time
	history *history
	counts  map[Outcome]*atomic.Uint64 // all there are: only the numbers change
}

// New returns an empty journal. It logs each outcome at debug.
func New(log *slog.Logger, now func() time.Time) *Journal {
	j := &Journal{log: log, now: now, history: newHistory(), counts: make(map[Outcome]*atomic.Uint64, len(meanings))}
	for o := range meanings {
		j.counts[o] = new(atomic.Uint64)
	}
	return j
}

// Count counts an outcome that is about no message.
func (j *Journal) Count(o Outcome) { j.counts[o].Add(1) }

// Note counts and remembers an outcome that is about no registration, or all.
func (j *Journal) Note(user jid.JID, eventID string, o Outcome) {
	j.NoteOf(user, eventID, o, Target{})
}

// NoteOf counts and remembers an outcome.
func (j *Journal) NoteOf(user jid.JID, eventID string, o Outcome, of Target) {
	j.Count(o)
	j.history.add(user, eventID, o, of, j.now())
	if ctx := context.Background(); j.log.Enabled(ctx, slog.LevelDebug) {
		j.log.LogAttrs(ctx, slog.LevelDebug, "push: decided", slog.String("user", string(user)), slog.String("event", eventID), slog.String("outcome", string(o)))
	}
}

// Counts returns the outcomes that have occurred.
func (j *Journal) Counts() map[string]uint64 {
	m := make(map[string]uint64)
	for o, n := range j.counts {
		if n := n.Load(); n > 0 {
			m[string(o)] = n
		}
	}
	return m
}

// Decisions lists what was decided lately about messages to a user, oldest first.
func (j *Journal) Decisions(user jid.JID) []Decision { return j.history.list(user) }
