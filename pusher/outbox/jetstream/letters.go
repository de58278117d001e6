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
	"eventpusher/pusher/outbox"
)

// longestError bounds the error of a dead letter, so that it fits where its event
// did.
const longestError = 4 << 10

// letterMessage is a dead letter as it is kept; its number is its sequence. The id
// keeps one that is written again, by whoever delivers the event a second time,
// from being there twice.
func letterMessage(n names, d *outbox.DeadLetter) (*nats.Msg, string) {
	if d.Event == nil {
		d.Event = &event.Event{}
	}
	if len(d.Err) > longestError {
		d.Err = strings.ToValidUTF8(d.Err[:longestError], "")
	}
	m := nats.NewMsg(n.lettersSubject())
	m.Data = outbox.AppendLetter(nil, d)
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d", d.Backend, d.Reason, d.Event.ID, d.Accepted.UnixNano()))
	return m, hex.EncodeToString(sum[:16])
}

// Letters are the dead letters in JetStream. All methods are safe for concurrent
// use, in any number of processes.
type Letters struct {
	ctx    context.Context
	js     js.JetStream
	layout *layout
	nc     *nats.Conn // closed by Close; nil inside an Engine
}

// OpenLetters reaches the dead letters without taking part in the delivery. It
// changes nothing: where there is no outbox, that is an error. Close it at the end.
func OpenLetters(ctx context.Context, o Options) (*Letters, error) {
	nc, j, l, err := visit(ctx, &o)
	if err != nil {
		return nil, err
	}
	return &Letters{ctx: ctx, js: j, layout: l, nc: nc}, nil
}

// visit connects to an outbox that is there already.
func visit(ctx context.Context, o *Options) (*nats.Conn, js.JetStream, *layout, error) {
	o.complete()
	nc, reachable, err := dial(o, func() {}, func() {})
	if err != nil {
		return nil, nil, nil, err
	}
	fail := func(err error) (*nats.Conn, js.JetStream, *layout, error) {
		nc.Close()
		return nil, nil, nil, err
	}
	if !reachable {
		return fail(fmt.Errorf("outbox: NATS cannot be reached at %s", o.URL))
	}
	j, err := js.New(nc, js.WithDefaultTimeout(requestTimeout), js.WithPublishAsyncTimeout(requestTimeout))
	if err != nil {
		return fail(err)
	}
	l, err := openLayout(ctx, j, o, false)
	if err != nil {
		return fail(err)
	}
	return nc, j, l, nil
}

// Close disconnects. It is for what OpenLetters has returned.
func (l *Letters) Close() error {
	if l.nc != nil {
		l.nc.Close()
	}
	return nil
}

// Add implements outbox.DeadLetters; the letter is kept when it returns.
func (l *Letters) Add(d outbox.DeadLetter) error {
	ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
	defer cancel()
	m, id := letterMessage(l.layout.names, &d)
	if _, err := l.js.PublishMsg(ctx, m, js.WithMsgID(id)); err != nil {
		return fmt.Errorf("outbox: dead letter: %w", explain(err))
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
	return scan(l.ctx, l.layout.letters, "", f.After+1, false, func(seq uint64, m js.Msg) (bool, error) {
		d, err := outbox.DecodeLetter(seq, m.Data())
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
	ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
	defer cancel()
	m, err := l.layout.letters.GetMsg(ctx, id)
	if errors.Is(err, js.ErrMsgNotFound) || id == 0 {
		return outbox.DeadLetter{}, fmt.Errorf("%w: %d", outbox.ErrNoLetter, id)
	}
	if err != nil {
		return outbox.DeadLetter{}, fmt.Errorf("outbox: dead letter %d: %w", id, explain(err))
	}
	return outbox.DecodeLetter(id, m.Data)
}

// letterStep is how many letters are dropped or replayed between two looks.
const letterStep = 500

// Drop implements outbox.DeadLetters.
func (l *Letters) Drop(f outbox.LetterFilter) (int, error) {
	return l.remove(f, func(outbox.DeadLetter) (bool, error) { return true, nil })
}

// Replay gives the selected letters to the instances that deliver to their
// backends, now or when one runs; see outbox.Outbox. A letter goes when its event
// is parked, so that nothing between the two can lose it.
func (l *Letters) Replay(f outbox.LetterFilter) (int, error) {
	ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
	defer cancel()
	m, _, err := l.layout.readMeta(ctx)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	return l.remove(f, func(d outbox.DeadLetter) (bool, error) {
		r, ok := m.Backends[d.Backend]
		if !ok {
			return false, nil
		}
		e := *d.Event
		e.Replayed = true
		p := outbox.ParkedEvent{ID: outbox.ReplayID(r.Number, d.ID), Event: &e, Accepted: now}
		ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
		defer cancel()
		_, err := l.js.PublishMsg(ctx, parkedMessage(l.layout.names, partitionOf(e.Key(), len(l.layout.logs)), &p))
		if err != nil {
			return false, fmt.Errorf("outbox: replay dead letter %d: %w", d.ID, explain(err))
		}
		return true, nil
	})
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
		left := deleteMessages(l.ctx, l.layout.letters, gone)
		removed += len(gone) - len(left)
		if len(left) > 0 {
			err = errors.Join(err, fmt.Errorf("outbox: %d dead letters could not be deleted", len(left)))
		}
		if err != nil || visited < letterStep || f.ID != 0 {
			return removed, err
		}
		if f.Limit > 0 {
			if f.Limit -= visited; f.Limit == 0 { // which would mean all
				return removed, nil
			}
		}
	}
}

// unreached are the dead letters while NATS has not been reached.
type unreached struct{ why error }

func (u unreached) Add(outbox.DeadLetter) error                           { return u.why }
func (u unreached) List(outbox.LetterFilter) ([]outbox.DeadLetter, error) { return nil, u.why }
func (u unreached) Get(uint64) (outbox.DeadLetter, error)                 { return outbox.DeadLetter{}, u.why }
func (u unreached) Drop(outbox.LetterFilter) (int, error)                 { return 0, u.why }
func (e *Engine) lettersOf(s *setup) *Letters {
	return &Letters{ctx: e.ctx, js: e.js, layout: s.layout}
}

// DeadLetters implements outbox.Outbox.
func (e *Engine) DeadLetters() outbox.DeadLetters {
	if s := e.set.Load(); s != nil {
		return e.lettersOf(s)
	}
	return unreached{e.connection.get()}
}

// Replay implements outbox.Outbox.
func (e *Engine) Replay(f outbox.LetterFilter) (int, error) {
	s := e.set.Load()
	if s == nil {
		return 0, e.connection.get()
	}
	return e.lettersOf(s).Replay(f)
}

// Bury implements outbox.Outbox: it returns when the letters are kept.
func (e *Engine) Bury(letters ...outbox.DeadLetter) error {
	if len(letters) == 0 {
		return nil
	}
	s := e.set.Load()
	if s == nil {
		return e.connection.get()
	}
	return e.bury(s, letters)
}

func (e *Engine) bury(s *setup, letters []outbox.DeadLetter) error {
	kept := e.lettersOf(s)
	for _, d := range letters {
		if err := kept.Add(d); err != nil {
			return err
		}
	}
	return nil
}
