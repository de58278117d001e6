package segment

import (
	"errors"
	"fmt"
)

// ErrClosed is returned by a Log that was closed.
var ErrClosed = errors.New("segment: log is closed")

// ErrTrimmed says that a reader wants events that Trim has removed.
var ErrTrimmed = errors.New("segment: events are no longer kept")

// CorruptionError says that records which were once written can no longer be
// read: a flipped byte, a shortened or a missing file. A torn last record is none.
type CorruptionError struct {
	File   string // the damaged file, or the one before or behind a missing one
	Offset int64  // where in it, in bytes
	// First and Next bound the events that cannot be read: First is lost and
	// Next is the first readable one behind. Equal: no event is lost.
	First, Next uint64
	Reason      string
}

// Events returns how many events are affected.
func (e *CorruptionError) Events() uint64 {
	if e.Next < e.First {
		return 0
	}
	return e.Next - e.First
}

// Error implements error; it says what is affected and what can be done.
func (e *CorruptionError) Error() string {
	affected := "no event is known to be lost"
	if n := e.Events(); n > 0 {
		affected = fmt.Sprintf("%d events, numbers %d to %d, cannot be read", n, e.First, e.Next-1)
	}
	return fmt.Sprintf("segment: %s, byte %d: %s: %s; restore the file from a copy, or accept the loss with on_damage = \"skip\" in [outbox]",
		e.File, e.Offset, e.Reason, affected)
}

// VersionError says that a file was written by a version of eventpusher that
// uses another format.
type VersionError struct {
	File    string
	Version uint32
}

// Error implements error; it says what can be done.
func (e *VersionError) Error() string {
	return fmt.Sprintf("segment: %s has format %d and this eventpusher reads format %d: run the version that wrote it, or let that version empty the outbox first",
		e.File, e.Version, Version)
}

// damage is a record that cannot be right; the caller knows which file and which
// events it concerns.
type damage struct{ reason string }

func (d *damage) Error() string { return d.reason }
