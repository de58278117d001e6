package jetstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/event"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

const (
	// longestError bounds the error of a dead letter, so that it fits where its event did.
	longestError = 4 << 10
	// letterStays is how long a dead letter stays in the state stream, from which the
	// servers copy it within a second.
	letterStays = time.Hour
	// nobody is the owner of letters that no backend has seen, and undecodable of those
	// that hold no event: they have a bound of their own, for users can cause them.
	nobody      = "-"
	undecodable = "undecodable"
)

// letterMessage is a dead letter as it is kept. Its subject is made of what it is about, so
// that a letter that is written again replaces the first.
func letterMessage(n names, owner string, d *outbox.DeadLetter) *nats.Msg {
	if d.Event == nil {
		d.Event = &event.Event{}
	}
	if len(d.Err) > longestError {
		d.Err = strings.ToValidUTF8(d.Err[:longestError], "")
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %d ", d.Backend, d.Accepted.UnixNano())
	sum.Write(event.AppendBinary(nil, d.Event))
	subject := n.lettersOf(owner) + hex.EncodeToString(sum.Sum(nil)[:16])
	return natsrpc.NewMsg(subject, outbox.AppendLetter(nil, d), natsrpc.Expires(letterStays))
}

// Letters are the dead letters in JetStream. Their numbers are their sequences. All methods are
// safe for concurrent use, in any number of processes.
type Letters struct {
	ctx    context.Context
	layout *layout
	nc     *nats.Conn // closed by Close; nil inside an Engine
}

// OpenLetters reaches the dead letters without taking part in the delivery. It changes
// nothing: if there is no outbox, that is an error. Close it at the end.
func OpenLetters(ctx context.Context, o Options) (*Letters, error) {
	nc, l, err := visit(ctx, &o)
	if err != nil {
		return nil, err
	}
	return &Letters{ctx: ctx, layout: l, nc: nc}, nil
}

// visit connects to an outbox that is there already.
func visit(ctx context.Context, o *Options) (*nats.Conn, *layout, error) {
	o.complete()
	nc, reachable, err := natsrpc.Dial(&o.Options, func() {}, func() {})
	if err != nil {
		return nil, nil, fmt.Errorf("outbox: %w", err)
	}
	fail := func(err error) (*nats.Conn, *layout, error) {
		nc.Close()
		return nil, nil, err
	}
	if !reachable {
		return fail(fmt.Errorf("outbox: NATS cannot be reached at %s", o.URL))
	}
	j, err := js.New(nc, js.WithDefaultTimeout(requestTimeout))
	if err != nil {
		return fail(err)
	}
	l, err := openLayout(ctx, nc, j, o, false)
	if err != nil {
		return fail(err)
	}
	return nc, l, nil
}

// Server says which server it is connected to, and which is needed.
func (l *Letters) Server() string {
	return fmt.Sprintf("nats-server %s (%s or later is needed)", l.layout.log.NC.ConnectedServerVersion(), MinServer)
}

// Close disconnects. It is for what OpenLetters has returned.
func (l *Letters) Close() error {
	if l.nc != nil {
		l.nc.Close()
	}
	return nil
}

// each calls visit with what the filter selects until visit returns false.
func (l *Letters) each(f outbox.LetterFilter, visit func(d outbox.DeadLetter) (bool, error)) error {
	if f.ID != 0 {
		d, err := l.Get(f.ID)
		if errors.Is(err, outbox.ErrNoLetter) || err == nil && !f.Selects(&d) {
			return nil
		}
		if err == nil {
			_, err = visit(d)
		}
		return err
	}
	found := 0
	return scan(l.ctx, l.layout.letters, "", f.After+1, func(r *natsrpc.Record) (bool, error) {
		d, err := outbox.DecodeLetter(r.Seq, r.Data)
		if err != nil || !f.Selects(&d) {
			return err == nil, err
		}
		found++
		more, err := visit(d)
		return more && (f.Limit == 0 || found < f.Limit), err
	})
}

// List implements outbox.DeadLetters.
func (l *Letters) List(f outbox.LetterFilter) (list []outbox.DeadLetter, err error) {
	err = l.each(f, func(d outbox.DeadLetter) (bool, error) {
		list = append(list, d)
		return true, nil
	})
	return list, err
}

// Get implements outbox.DeadLetters.
func (l *Letters) Get(id uint64) (outbox.DeadLetter, error) {
	none := fmt.Errorf("%w: %d", outbox.ErrNoLetter, id)
	if id == 0 {
		return outbox.DeadLetter{}, none
	}
	r, ok, err := l.layout.letters.At(l.ctx, id)
	switch {
	case err != nil:
		return outbox.DeadLetter{}, fmt.Errorf("outbox: dead letter %d: %w", id, natsrpc.Explain(err))
	case !ok:
		return outbox.DeadLetter{}, none
	}
	return outbox.DecodeLetter(id, r.Data)
}

// letterStep is how many letters are dropped or replayed between two looks.
const letterStep = 500

// Drop implements outbox.DeadLetters.
func (l *Letters) Drop(f outbox.LetterFilter) (int, error) {
	return l.remove(f, func(outbox.DeadLetter) (bool, error) { return true, nil })
}

// Replay gives the selected letters to the instances that deliver to their backends, now or
// when one runs; see outbox.Outbox. A letter goes when its event is kept for its partition,
// so that nothing between the two can lose it.
func (l *Letters) Replay(f outbox.LetterFilter) (int, error) {
	ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
	defer cancel()
	m, seq, err := l.layout.readMeta(ctx)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	n, err := l.remove(f, func(d outbox.DeadLetter) (bool, error) {
		r, ok := m.Backends[d.Backend]
		if !ok {
			return false, nil
		}
		e := *d.Event
		e.Replayed = true
		p := outbox.ParkedEvent{ID: outbox.ReplayID(r.Number, d.ID), Event: &e, Accepted: now}
		message := parkedMessage(l.layout.names, partitionOf(e.Key(), m.Partitions), &p)
		natsrpc.Fenced(l.layout.names.meta(), seq)(message.Header) // the number must still be the backend's
		if _, err := l.layout.state.Write(l.ctx, message); err != nil {
			return false, fmt.Errorf("outbox: replay dead letter %d: %w", d.ID, natsrpc.Explain(err))
		}
		return true, nil
	})
	_ = l.layout.log.NC.Publish(l.layout.names.bell(), nil) // the instances look anyway
	return n, err
}

// remove takes away what the filter selects and take agrees to.
func (l *Letters) remove(f outbox.LetterFilter, take func(outbox.DeadLetter) (bool, error)) (removed int, err error) {
	for {
		visited := 0
		var gone []uint64
		err := l.each(f, func(d outbox.DeadLetter) (bool, error) {
			visited++
			f.After = max(f.After, d.ID)
			ok, err := take(d)
			if ok && err == nil {
				gone = append(gone, d.ID)
			}
			return visited < letterStep, err
		})
		n, fault := l.delete(gone)
		removed += n
		if err = errors.Join(err, fault); err != nil || visited < letterStep || f.ID != 0 {
			return removed, err
		}
		if f.Limit > 0 {
			if f.Limit -= visited; f.Limit == 0 { // which would mean all
				return removed, nil
			}
		}
	}
}

// delete removes letters and returns how many are gone.
func (l *Letters) delete(seqs []uint64) (n int, err error) {
	if len(seqs) == 0 {
		return 0, nil
	}
	s, err := l.layout.js.Stream(l.ctx, l.layout.names.letters())
	if err != nil {
		return 0, fmt.Errorf("outbox: %w", natsrpc.Explain(err))
	}
	for _, seq := range seqs {
		ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
		err := s.DeleteMsg(ctx, seq)
		cancel()
		var api *js.APIError
		if err != nil && !errors.As(err, &api) { // the server's own answer is that it is not there
			return n, fmt.Errorf("outbox: dead letter %d cannot be deleted: %w", seq, natsrpc.Explain(err))
		}
		n++
	}
	return n, nil
}
