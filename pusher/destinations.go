package pusher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"eventpusher/pusher/outbox"
)

// Backends can be added and removed while Run runs (Change). For one that is not configured any
// more events may wait: a leftover. It gets no new events, and nothing of it is delivered
// before a backend of that name is added, Move gives the events to another one or Forget
// gives them up. At MaxAge they become dead letters.

// leftover is a backend that is not configured.
type leftover struct {
	name   string
	reader outbox.Reader
	told   bool // the log says that events wait
}

// leftoverPause is how often leftovers are looked for, and at the age of what waits for them.
const leftoverPause = time.Minute

// all returns the dispatchers of the configured backends. The slice must not be changed.
func (p *Pusher) all() []*dispatcher { return *p.dispatchers.Load() }

// find returns the dispatcher of a backend, nil if it is not configured.
func (p *Pusher) find(name string) *dispatcher {
	for _, d := range p.all() {
		if d.name == name {
			return d
		}
	}
	return nil
}

// findLeftovers finds what waits for backends that are not configured. Backends for which
// nothing is left are forgotten. p.changing is held.
func (p *Pusher) findLeftovers() error {
	idle := p.intake.idle() // before the outbox is asked: what is on its way may be for one that was removed
	known, err := p.box.Backends()
	if err != nil {
		return err
	}
	for _, l := range p.left() {
		if !slices.ContainsFunc(known, func(b outbox.BackendRecovery) bool { return b.Name == l.name }) {
			err = errors.Join(err, p.dropLeftover(l.name)) // another instance has moved or forgotten it
		}
	}
	for _, b := range known {
		switch {
		case p.find(b.Name) != nil:
		case b.Settled && idle:
			if fault := p.dropLeftover(b.Name); fault != nil {
				err = errors.Join(err, fault)
			} else if _, fault := p.box.Forget(b.Name); fault != nil {
				err = errors.Join(err, fault)
			} else {
				p.log.Info("a backend that is not configured any more is forgotten: nothing waited for it", "backend", b.Name)
			}
		case p.reader(b.Name) == nil:
			err = errors.Join(err, p.openLeftover(b.Name))
		}
	}
	return err
}

func (p *Pusher) openLeftover(name string) error {
	r, err := p.box.Reader(name, nil)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.leftovers = append(p.leftovers, &leftover{name: name, reader: r})
	p.mu.Unlock()
	p.metrics.backlog.add(name, r, false)
	return nil
}

// left returns the leftovers.
func (p *Pusher) left() []*leftover {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.leftovers)
}

// reader returns the reader of a backend, configured or not, nil if there is none.
func (p *Pusher) reader(name string) outbox.Reader {
	if d := p.find(name); d != nil {
		return d.reader
	}
	for _, l := range p.left() {
		if l.name == name {
			return l.reader
		}
	}
	return nil
}

// dropLeftover closes the reader of a leftover, if there is one of that name.
func (p *Pusher) dropLeftover(name string) error {
	for i, l := range p.left() {
		if l.name != name {
			continue
		}
		p.mu.Lock()
		p.leftovers = slices.Delete(p.leftovers, i, i+1)
		p.mu.Unlock()
		p.metrics.backlog.remove(name)
		return l.reader.Close()
	}
	return nil
}

// watchLeftovers finds leftovers, and makes dead letters of what has waited for too long,
// until ctx ends.
func (p *Pusher) watchLeftovers(ctx context.Context) {
	tick := time.NewTicker(leftoverPause)
	defer tick.Stop()
	for {
		p.lookAtLeftovers()
		select {
		case <-ctx.Done():
			return
		case <-p.draining:
			return
		case <-tick.C:
		}
	}
}

func (p *Pusher) lookAtLeftovers() {
	p.changing.Lock()
	defer p.changing.Unlock()
	if err := p.findLeftovers(); err != nil {
		p.log.Warn("the outbox does not say what waits for backends that are not configured; it is asked again", "err", err)
	}
	for _, l := range p.left() {
		if p.options.MaxAge > 0 {
			p.expireLeftover(l, time.Now().Add(-p.options.MaxAge))
		}
		if s := l.reader.Stats(); !l.told && s.Waiting+s.InFlight > 0 {
			l.told = true
			p.log.Warn("events wait for a backend that is not configured", "backend", l.name, "events", s.Waiting+s.InFlight, "kept_until_age", p.options.MaxAge,
				"remedy", "configure it under this name again, or give the events to another backend with: eventpusher outbox move "+l.name+
					" NEW, or give them up with: eventpusher outbox forget "+l.name)
		}
	}
}

func (p *Pusher) expireLeftover(l *leftover, before time.Time) {
	total := 0
	for n := 1; n > 0; total += n {
		var err error
		if n, err = l.reader.Expire(before); err != nil {
			p.log.Error("dead letters cannot be kept", "backend", l.name, "err", err)
			break
		}
	}
	if total > 0 {
		p.metrics.dead.WithLabelValues(l.name, outbox.ReasonMaxAge).Add(float64(total))
		p.log.Error("events of a backend that is not configured waited too long and went to the dead letters", "backend", l.name, "events", total, "max_age", p.options.MaxAge)
	}
}

// errConfigured says that something concerns only backends that are not configured.
var errConfigured = errors.New("is configured: take it out of the configuration, and reload or restart eventpusher, first")

// Forget gives up what waits for a backend that is not configured, and returns how many
// events that were. The error wraps fs.ErrNotExist if the outbox does not know it. It is
// safe for concurrent use.
func (p *Pusher) Forget(name string) (int, error) {
	p.changing.Lock()
	defer p.changing.Unlock()
	if p.find(name) != nil {
		return 0, fmt.Errorf("%s %w", name, errConfigured)
	}
	if err := p.dropLeftover(name); err != nil {
		return 0, err
	}
	n, err := p.box.Forget(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(err, p.openLeftover(name))
	}
	return n, err
}

// Move gives what waits for a backend that is not configured, and its dead letters, to one
// that is; see outbox.Move. The error wraps fs.ErrNotExist if the outbox does not know
// the first one. It is safe for concurrent use, while Run runs.
func (p *Pusher) Move(ctx context.Context, from, to string) (int, error) {
	p.changing.Lock()
	defer p.changing.Unlock()
	d := p.find(to)
	switch {
	case p.find(from) != nil:
		return 0, fmt.Errorf("%s %w", from, errConfigured)
	case d == nil:
		return 0, fmt.Errorf("%s is not configured: only a configured backend can take events", to)
	}
	if err := p.dropLeftover(from); err != nil {
		return 0, err
	}
	n, err := outbox.Move(ctx, p.box, from, d.reader, to, func(pack outbox.Pack) error {
		return p.forward(ctx, pack.Entries)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(err, p.openLeftover(from))
	}
	return n, err
}
