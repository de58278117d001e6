package pusher

import (
	"context"
	"slices"
	"sync"
	"time"

	"eventpusher/pusher/outbox"
)

// Bounds of what waits for the disk: beyond them Push waits. A pack is one write
// to the disk; events that come meanwhile make the next one.
const (
	intakeEvents = 16_384
	intakeBytes  = 32 << 20
	packEvents   = 1024
	packBytes    = 1 << 20
)

// batch is what one or more calls of Push and its sisters have brought, or a part of it.
type batch struct {
	entries   []outbox.Entry
	letters   []outbox.DeadLetter // whose filter failed
	positions []outbox.Position   // each of another source
	committed func(error)         // nil: nobody wants to know
	bytes     int64
}

// line is a sequence of batches that are committed in order.
type line struct {
	batches []*batch
	events  int // in batches, and on their way into the outbox
	bytes   int64
	held    bool // the outbox takes none of them for now
	under   int  // batches on their way into the outbox

	again time.Time // of the committer: when to offer them again
}

// full reports whether Push has to wait.
func (l *line) full() bool { return l.events >= intakeEvents || l.bytes >= intakeBytes }

// intake holds filtered events until the committer has put them into the outbox.
// Events of acknowledged feeds stand in a line of their own: they can wait when
// the outbox is full, and the others must not wait for them.
type intake struct {
	work chan struct{} // the committer may have something to do

	mu           sync.Mutex
	room         sync.Cond // on mu: there may be room, or no use to wait
	plain, acked line
	closed       bool
	recalled     chan struct{} // nil: nobody wants to have back what is there
}

func newIntake() *intake {
	in := &intake{work: make(chan struct{}, 1)}
	in.room.L = &in.mu
	return in
}

// put takes a batch, whose slices stay the caller's. It waits for room unless
// the outbox takes nothing: then what finds no room is refused.
func (in *intake) put(b batch) (why dropReason, ok bool) {
	l := &in.plain
	if b.committed != nil || len(b.positions) > 0 {
		l = &in.acked
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for l.full() && !l.held && !in.closed {
		in.room.Wait()
	}
	switch {
	case in.closed:
		return dropStopped, false
	case l.full():
		return dropOutbox, false
	}
	for rest, last := b, false; !last; {
		part := rest
		n := 0
		for part.bytes = 0; n < len(rest.entries) && n < packEvents && part.bytes < packBytes; n++ {
			part.bytes += int64(outbox.Size(rest.entries[n].Event))
		}
		for j := range part.letters {
			part.bytes += int64(outbox.Size(part.letters[j].Event))
		}
		part.entries, rest.entries, rest.letters = rest.entries[:n], rest.entries[n:], nil
		if last = len(rest.entries) == 0; !last {
			part.positions, part.committed = nil, nil // only the last part stands for all
		}
		l.add(part)
	}
	select {
	case in.work <- struct{}{}:
	default:
	}
	return "", true
}

// add appends a batch, to the last one when nobody can tell the difference.
func (l *line) add(b batch) {
	l.events += len(b.entries)
	l.bytes += b.bytes
	if n := len(l.batches); n > 0 && b.committed == nil {
		tail := l.batches[n-1]
		if tail.committed == nil && len(tail.entries)+len(b.entries) <= packEvents && tail.bytes+b.bytes <= packBytes {
			tail.entries = append(tail.entries, b.entries...)
			tail.letters = append(tail.letters, b.letters...)
			tail.positions = latest(tail.positions, b.positions)
			tail.bytes += b.bytes
			return
		}
	}
	l.batches = append(l.batches, &batch{
		entries: slices.Clone(b.entries), letters: slices.Clone(b.letters), positions: slices.Clone(b.positions),
		committed: b.committed, bytes: b.bytes,
	})
}

// take returns the next pack's worth of batches of a line. They go on counting
// until done.
func (in *intake) take(l *line) []*batch {
	in.mu.Lock()
	defer in.mu.Unlock()
	n, events, bytes := 0, 0, int64(0)
	for ; n < len(l.batches); n++ {
		b := l.batches[n]
		if n > 0 && (events+len(b.entries) > packEvents || bytes+b.bytes > packBytes) {
			break
		}
		events += len(b.entries)
		bytes += b.bytes
	}
	list := l.batches[:n:n]
	l.under = n
	if l.batches = l.batches[n:]; len(l.batches) == 0 {
		l.batches = nil
	}
	return list
}

// back puts batches that the outbox has refused at the front again.
func (in *intake) back(l *line, list []*batch) {
	in.mu.Lock()
	defer in.mu.Unlock()
	l.batches = append(list, l.batches...)
	l.held, l.under = true, 0
	in.room.Broadcast()
}

// done gives up the room of batches that the outbox has taken.
func (in *intake) done(l *line, list []*batch) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, b := range list {
		l.events -= len(b.entries)
		l.bytes -= b.bytes
	}
	l.held, l.under = false, 0
	in.room.Broadcast()
}

// empty waits until nothing is in the intake, or ctx ends.
func (in *intake) empty(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.room.Broadcast()
	})()
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.plain.batches)+in.plain.under+len(in.acked.batches)+in.acked.under > 0 && ctx.Err() == nil {
		in.room.Wait()
	}
}

// recall asks the committer to refuse all that waits, and returns what is closed when it
// has.
func (in *intake) recall() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.recalled == nil {
		in.recalled = make(chan struct{})
	}
	if !in.closed {
		select {
		case in.work <- struct{}{}:
		default:
		}
	}
	return in.recalled
}

// takeRecall returns what is to be closed when all that waits has been refused, nil if
// nobody has asked for that.
func (in *intake) takeRecall() chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.recalled
	in.recalled = nil
	return c
}

// isClosed reports whether close has been called.
func (in *intake) isClosed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.closed
}

// close refuses everything from now on; what is there is still committed.
func (in *intake) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return
	}
	in.closed = true
	in.room.Broadcast()
	close(in.work)
}

// idle reports whether nothing is on its way into the outbox.
func (in *intake) idle() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.plain.batches)+in.plain.under+len(in.acked.batches)+in.acked.under == 0
}
