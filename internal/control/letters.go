// Package control lets commands on the same machine reach what a running
// instance holds, over a unix socket beside the outbox.
//
// Access is the file system's: only who may use the outbox's directory, and so
// could read the events anyway, can connect.
package control

import (
	"context"

	"eventpusher/pusher/outbox"
)

// SocketName is the socket's name in the outbox's directory.
const SocketName = "control.sock"

// Box is the part of an outbox that commands use.
type Box interface {
	DeadLetters() outbox.DeadLetters
	// Replay gives the selected dead letters back to their backends and returns how many. It
	// ends with ctx.
	Replay(ctx context.Context, f outbox.LetterFilter) (int, error)
	// Move gives what waits for a backend that is not configured to one that is. The error
	// wraps fs.ErrNotExist if nothing is kept for the first one.
	Move(ctx context.Context, from, to string) (int, error)
	// Forget gives up what waits for a backend that is not configured. The error wraps
	// fs.ErrNotExist if nothing is kept for it.
	Forget(backend string) (int, error)
	// Waiting says what Forget would give up.
	Waiting(backend string) (int, error)
}

// Letters are the dead letters, wherever the outbox is open: in this process, or in another
// (Client).
type Letters interface {
	// List returns the selected ones, oldest first.
	List(outbox.LetterFilter) ([]outbox.DeadLetter, error)
	// Get returns one; the error wraps outbox.ErrNoLetter if it is not there.
	Get(id uint64) (outbox.DeadLetter, error)
	// Drop forgets the selected ones for good and returns how many.
	Drop(outbox.LetterFilter) (int, error)
	// Replay gives the selected ones back to their backends and returns how many.
	Replay(outbox.LetterFilter) (int, error)
}
