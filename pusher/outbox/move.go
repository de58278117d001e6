package outbox

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

const (
	// moveStep is how many events Move appends at once.
	moveStep = 500
	// movePause is when Move looks again if it is not notified.
	movePause = 100 * time.Millisecond
)

// Merger is an Outbox that several instances share: one of them cannot take what waits in
// the others.
type Merger interface {
	// Merge gives what is kept for a backend, its dead letters excepted, to another one that is
	// known, with the number of its attempts, and returns how many messages of the log it had
	// still to get. The order within a key is kept among the events of each of the two. The errors
	// are those of Rename.
	Merge(from, to string) (int, error)
}

// Move gives everything that is kept for one backend to another one, which then has it
// once more from the first attempt: what waits, in its order but after what waits there
// already, and the dead letters. It returns how many events waited. from must not be
// read. to is the reader of toName, nil if the outbox does not know that one: then it
// takes the place of from as it is. add is Outbox.Append. If box is a Merger, see there.
//
// The error wraps fs.ErrNotExist if nothing is kept for from. Any other error leaves the
// rest where it was: call Move again. After a crash some events are
// delivered twice.
func Move(ctx context.Context, box Outbox, from string, to Reader, toName string, add func(Pack) error) (moved int, err error) {
	known, err := box.Backends()
	if err != nil {
		return 0, err
	}
	merger, shared := box.(Merger)
	i := slices.IndexFunc(known, func(b BackendRecovery) bool { return b.Name == from })
	switch {
	case i < 0:
	case to == nil:
		moved = known[i].Waiting + known[i].Parked
		if err := box.Rename(from, toName); err != nil {
			return 0, err
		}
	case shared:
		if moved, err = merger.Merge(from, toName); err != nil {
			return 0, err
		}
	default:
		if moved, err = moveEvents(ctx, box, from, to.Number(), add); err != nil {
			return moved, err
		}
		if _, err = box.Forget(from); err != nil {
			return moved, err
		}
	}
	letters, err := MoveLetters(box, from, toName)
	if err == nil && i < 0 && letters == 0 {
		err = fmt.Errorf("outbox: nothing is kept for a backend %q: %w", from, fs.ErrNotExist)
	}
	return moved, err
}

// moveEvents appends what waits for a backend for the reader with the given number.
func moveEvents(ctx context.Context, box Outbox, from string, number int, add func(Pack) error) (moved int, err error) {
	wake := make(chan struct{}, 1)
	r, err := box.Reader(from, func() { signal(wake) })
	if err != nil {
		return 0, err
	}
	for {
		n, err := moveSome(r, number, add)
		moved += n
		if s := r.Stats(); err != nil || n == 0 && s.Waiting+s.InFlight == 0 {
			return moved, joinClose(err, r)
		}
		if n > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return moved, joinClose(ctx.Err(), r)
		case <-wake:
		case <-time.After(movePause):
		}
	}
}

func joinClose(err error, r Reader) error {
	if e := r.Close(); err == nil {
		err = e
	}
	return err
}

// moveSome appends what Take gives now.
func moveSome(r Reader, number int, add func(Pack) error) (int, error) {
	items, _, _ := r.Take(nil, moveStep, false)
	items = r.Load(items)
	if len(items) == 0 {
		return 0, nil
	}
	var p Pack
	var to Subscribers
	to.Add(number)
	settled := make([]Settlement, len(items))
	for i, it := range items {
		p.Entries = append(p.Entries, Entry{Event: it.Event, Subscribers: to})
		settled[i] = Settlement{Item: it, Outcome: Delivered}
	}
	err := add(p)
	if err != nil {
		for i := range settled {
			settled[i].Outcome = Requeue
		}
		_ = r.Settle(settled) // they stay in any case
		return 0, fmt.Errorf("outbox: move: %w", err)
	}
	return len(items), r.Settle(settled)
}

// MoveLetters gives the dead letters of one backend to another one, under new numbers, and
// returns how many those are.
func MoveLetters(box Outbox, from, to string) (moved int, err error) {
	f := LetterFilter{Backend: from, Limit: moveStep}
	for {
		list, err := box.DeadLetters().List(f)
		if err != nil || len(list) == 0 {
			return moved, err
		}
		for i := range list {
			list[i].Backend = to
		}
		if err := box.Bury(list...); err != nil {
			return moved, err
		}
		for i := range list {
			if _, err := box.DeadLetters().Drop(LetterFilter{ID: list[i].ID}); err != nil {
				return moved, err
			}
		}
		moved += len(list)
	}
}
