package pusher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"eventpusher/backends"
	"eventpusher/pusher/filter"
)

// waker passes what the outbox says on to the dispatcher that has the reader now.
type waker struct{ now atomic.Pointer[dispatcher] }

func (w *waker) notify() {
	if d := w.now.Load(); d != nil {
		d.notify()
	}
}

// Change replaces filters, backends and conditions in one step: for each event, either all the
// old ones or all the new ones count. The arguments are those of Options.
//
//   - A backend that is there already, the same value, goes on.
//   - A new backend under a name that is there takes over what waits for it. It begins when
//     the calls of the old one have ended, so that the order is kept.
//   - Another new backend gets the events that are pushed from now on, and what waits for its name.
//   - Of a backend that is not in the list, what waits stays in the outbox.
//
// Change returns when all calls of the backends that are replaced or removed have ended, so that
// they can be closed. Once ctx ends their calls are cancelled: what they carried is delivered again.
// If it returns an error of its arguments or of the outbox before the step, nothing has changed;
// ErrChanged is wrapped by errors after it. It is safe for concurrent use.
func (p *Pusher) Change(ctx context.Context, chain *filter.Chain, list []backends.Backend, conditions map[string]*filter.Condition) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	c, err := p.plan(list)
	if err == nil {
		err = p.swap(c, chain, conditions)
	}
	if err != nil {
		return errors.Join(err, c.undo(p))
	}
	if err := p.finishChange(ctx, c); err != nil {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return nil
}

// ErrChanged says that Change has done what it was asked for, in spite of an error.
var ErrChanged = errors.New("pusher: the outbox has made trouble after the change")

// planned is what Change is about to do.
type planned struct {
	dispatchers []*dispatcher
	added       []*dispatcher // those of them that have a reader of their own
	replaced    map[*dispatcher]*dispatcher
	removed     []*dispatcher
}

// plan opens the readers that are needed. p.changing is held.
func (p *Pusher) plan(list []backends.Backend) (*planned, error) {
	c := &planned{replaced: make(map[*dispatcher]*dispatcher)}
	names := make(map[string]bool)
	for _, b := range list {
		name := b.Name()
		if name == "" || names[name] {
			return c, fmt.Errorf("pusher: backend name %q is empty or used twice", name)
		}
		names[name] = true
		old := p.find(name)
		if old != nil && old.backend == b {
			c.dispatchers = append(c.dispatchers, old)
			continue
		}
		d := newDispatcher(b, &p.options)
		d.declined, _ = b.(backends.Declining)
		if old != nil {
			d.reader, d.waker = old.reader, old.waker
			c.replaced[old] = d
		} else if err := p.open(d); err != nil {
			return c, err
		} else {
			c.added = append(c.added, d)
		}
		c.dispatchers = append(c.dispatchers, d)
	}
	for _, d := range p.all() {
		if !names[d.name] {
			c.removed = append(c.removed, d)
		}
	}
	return c, nil
}

// open opens the reader of a backend that is not there yet.
func (p *Pusher) open(d *dispatcher) (err error) {
	if err := p.dropLeftover(d.name); err != nil {
		return err
	}
	d.waker = new(waker)
	d.waker.now.Store(d)
	d.reader, err = p.box.Reader(d.name, d.waker.notify)
	return err
}

// undo closes what plan has opened. What waits there is found as a leftover later.
func (c *planned) undo(p *Pusher) error {
	var errs []error
	for _, d := range c.added {
		errs = append(errs, d.reader.Close(), p.openLeftover(d.name))
	}
	return errors.Join(errs...)
}

// swap is the step that events see.
func (p *Pusher) swap(c *planned, chain *filter.Chain, conditions map[string]*filter.Condition) error {
	p.pushing.Lock()
	defer p.pushing.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return errStopped
	}
	p.chain = chain
	for _, d := range c.dispatchers {
		d.condition = conditions[d.name]
	}
	for _, d := range c.added {
		p.metrics.backlog.add(d.name, d.reader, true)
	}
	p.dispatchers.Store(&c.dispatchers)
	if p.start != nil {
		for _, d := range c.added {
			p.begin(d)
		}
	}
	return nil
}

// begin starts the lanes of a dispatcher, once. p.mu is held.
func (p *Pusher) begin(d *dispatcher) {
	if d.begun {
		return
	}
	d.begun = true
	if p.closed.Load() {
		close(d.ended) // Run does not wait for lanes that begin now
		return
	}
	p.start(d)
}

// finishChange ends the lanes of what was replaced or removed, and starts those that take over.
func (p *Pusher) finishChange(ctx context.Context, c *planned) error {
	var ending sync.WaitGroup
	for old, d := range c.replaced {
		ending.Go(func() {
			p.halt(ctx, old)
			d.inherit(old)
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.start != nil {
				p.begin(d)
			}
		})
	}
	for _, d := range c.removed {
		ending.Go(func() { p.halt(ctx, d) })
	}
	ending.Wait()
	var errs []error
	for _, d := range c.removed {
		p.metrics.backlog.remove(d.name)
		p.metrics.breaker.DeleteLabelValues(d.name)
		errs = append(errs, d.reader.Close(), p.openLeftover(d.name))
	}
	return errors.Join(errs...)
}

// halt ends the lanes of a dispatcher and returns when they have returned. Once ctx ends their
// calls are cancelled.
func (p *Pusher) halt(ctx context.Context, d *dispatcher) {
	d.stop()
	p.mu.Lock()
	begun := d.begun
	d.begun = true // it does not begin any more
	p.mu.Unlock()
	if !begun {
		return
	}
	select {
	case <-d.ended:
	case <-ctx.Done():
		d.mu.Lock()
		d.leave()
		d.mu.Unlock()
		<-d.ended
	}
}

// inherit takes over what a former dispatcher of the name has counted, and its reader.
func (d *dispatcher) inherit(old *dispatcher) {
	d.delivered.Add(old.delivered.Load())
	d.failed.Add(old.failed.Load())
	d.dead.Add(old.dead.Load())
	d.waker.now.Store(d)
	d.metrics.breaker.Set(float64(Closed))
}
