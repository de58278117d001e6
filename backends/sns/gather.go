package sns

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// gatherer puts what several lanes publish to one topic into one call, within linger. Its
// methods are safe for concurrent use.
type gatherer struct {
	linger time.Duration // 0: what one lane brings goes out at once
	send   func(ctx context.Context, entries []entry, errs []error)

	mu    sync.Mutex
	open  map[string]*gathering             // by topic
	calls map[*gathering]context.CancelFunc // under way
	tasks sync.WaitGroup                    // one of each call
}

// gathering is a call that still has room.
type gathering struct {
	waiting []*waiting
	timer   *time.Timer // nil without linger
}

// waiting is one entry and its lane.
type waiting struct {
	entry
	gone <-chan struct{} // closed when the lane has given up
	done chan error      // takes one
}

func newGatherer(linger time.Duration, send func(context.Context, []entry, []error)) *gatherer {
	return &gatherer{linger: linger, send: send, open: make(map[string]*gathering), calls: make(map[*gathering]context.CancelFunc)}
}

// publish sends entries, no two of them of one group, and fills the errors at their indices.
// It returns when all are decided or ctx ends; then what was sent may arrive all the same.
func (g *gatherer) publish(ctx context.Context, entries []entry, errs []error) {
	all := g.add(ctx, entries)
	for _, w := range all {
		select {
		case errs[w.index] = <-w.done:
			continue
		default:
		}
		select {
		case errs[w.index] = <-w.done:
		case <-ctx.Done():
			errs[w.index] = fmt.Errorf("sns: publish to %s: %w", w.topic, ctx.Err())
		}
	}
}

// add puts entries into calls and starts those that are full.
func (g *gatherer) add(ctx context.Context, entries []entry) []*waiting {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*waiting, len(entries))
	for i := range entries {
		w := &waiting{entry: entries[i], gone: ctx.Done(), done: make(chan error, 1)}
		all[i] = w
		c := g.open[w.topic]
		if c != nil && !c.fits(&w.entry) {
			g.start(w.topic, c)
			c = nil
		}
		if c == nil {
			c = new(gathering)
			g.open[w.topic] = c
			if g.linger > 0 {
				c.timer = time.AfterFunc(g.linger, func() { g.ripe(w.topic, c) })
			}
		}
		if c.waiting = append(c.waiting, w); len(c.waiting) == batchSize {
			g.start(w.topic, c)
		}
	}
	if g.linger <= 0 {
		for topic, c := range g.open {
			g.start(topic, c)
		}
	}
	return all
}

// ripe starts a call whose time has come.
func (g *gatherer) ripe(topic string, c *gathering) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open[topic] == c {
		g.start(topic, c)
	}
}

// start makes the call; the caller holds mu.
func (g *gatherer) start(topic string, c *gathering) {
	delete(g.open, topic)
	if c.timer != nil {
		c.timer.Stop()
	}
	// Not the context of a lane: one that gives up must not spoil the call for the others.
	ctx, cancel := context.WithCancel(context.Background())
	g.calls[c] = cancel
	g.tasks.Go(func() {
		g.call(ctx, c.waiting)
		cancel()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.calls, c)
	})
}

// call sends what a lane still waits for.
func (g *gatherer) call(ctx context.Context, all []*waiting) {
	var entries []entry
	var lanes []*waiting
	for _, w := range all {
		select {
		case <-w.gone:
		default:
			en := w.entry
			en.index = len(entries)
			entries, lanes = append(entries, en), append(lanes, w)
		}
	}
	errs := make([]error, len(entries))
	g.send(ctx, entries, errs)
	for i, w := range lanes {
		w.done <- errs[i]
	}
}

// close ends the calls that are under way. No publish may be under way, nor follow.
func (g *gatherer) close() {
	g.mu.Lock()
	for topic, c := range g.open { // whose lanes have given up
		delete(g.open, topic)
		if c.timer != nil {
			c.timer.Stop()
		}
	}
	for _, cancel := range g.calls {
		cancel()
	}
	g.mu.Unlock()
	g.tasks.Wait()
}

// fits reports whether a call has room for en: at most batchSize entries and maxBytes in all,
// and on FIFO topics one entry of a group, since the entries of a call fail singly and a
// later one must not overtake.
func (c *gathering) fits(en *entry) bool {
	size := en.size
	for _, other := range c.waiting {
		size += other.size
		if en.group != "" && other.group == en.group {
			return false
		}
	}
	return len(c.waiting) < batchSize && size <= maxBytes
}
