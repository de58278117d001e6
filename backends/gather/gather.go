// Package gather puts what several lanes of a backend publish into common calls of the service.
package gather

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"eventpusher/pusher/filter"
)

// Options are what a Gatherer needs.
type Options[T any] struct {
	// Linger is how long a call waits for more entries; 0: what Publish brings goes out at once.
	Linger time.Duration
	Most   int // entries of a call, at least 1
	Bytes  int // of all entries of a call; an entry that is larger has a call of its own
	Calls  int // at once; the others wait
	// Send makes one call, or as many as it takes, and calls decided for each entry, by its
	// index, as soon as it is known what has become of it. ctx has the values of the context of
	// the first entry; it ends when no Publish waits for an undecided entry. If Send panics, each
	// Publish that waits for an undecided entry panics with a *filter.Panic.
	Send func(ctx context.Context, entries []T, decided func(i int, err error))
}

// Entry is one event on its way.
type Entry[T any] struct {
	Index int    // of its error
	Key   string // entries of a call have the same, such as a topic
	Size  int    // in bytes
	Value T
}

// Gatherer collects entries until a call is full or Linger is over. Its methods are safe for
// concurrent use. The entries of a call are in no order, and calls overtake each other.
type Gatherer[T any] struct {
	o     Options[T]
	slots chan struct{}

	mu      sync.Mutex
	open    map[string]*call[T] // by key
	started map[*call[T]]bool   // and not ended
	tasks   sync.WaitGroup      // one of each started call
}

// call is a call that is being filled, or on its way.
type call[T any] struct {
	waiting []*waiting[T]
	size    int
	left    int         // entries that are not decided and whose Publish waits
	timer   *time.Timer // nil without Linger
	run     func()
	cancel  context.CancelFunc
}

// waiting is an entry whose Publish waits for its error.
type waiting[T any] struct {
	Entry[T]
	call *call[T]
	gone bool       // decided, or Publish has given up
	done chan error // takes one
}

// New returns a Gatherer that has to be closed.
func New[T any](o Options[T]) *Gatherer[T] {
	return &Gatherer[T]{o: o, slots: make(chan struct{}, max(o.Calls, 1)), open: make(map[string]*call[T]), started: make(map[*call[T]]bool)}
}

// Publish sends entries and fills the errors at their indices. It returns when all are decided
// or ctx ends; then what was sent may arrive all the same.
func (g *Gatherer[T]) Publish(ctx context.Context, entries []Entry[T], errs []error) {
	if err := ctx.Err(); err != nil {
		for _, en := range entries {
			errs[en.Index] = fmt.Errorf("not sent: %w", err)
		}
		return
	}
	var panicked *filter.Panic
	for _, w := range g.add(ctx, entries) {
		err := g.wait(ctx, w)
		if p, ok := errors.AsType[*filter.Panic](err); ok {
			panicked = p
		}
		errs[w.Index] = err
	}
	if panicked != nil {
		panic(panicked)
	}
}

// wait returns what has become of an entry, or gives it up when ctx ends.
func (g *Gatherer[T]) wait(ctx context.Context, w *waiting[T]) error {
	select {
	case err := <-w.done: // also if ctx has ended
		return err
	default:
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		g.leave(w)
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// leave takes out an entry that is decided or given up. If no Publish waits for another entry of
// its call, the call ends. Repeating it does nothing.
func (g *Gatherer[T]) leave(w *waiting[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.gone {
		return
	}
	w.gone = true
	c := w.call
	if c.left--; c.left > 0 {
		return
	}
	c.cancel()
	if g.open[w.Key] == c {
		delete(g.open, w.Key)
		if c.timer != nil {
			c.timer.Stop()
		}
	}
}

// add puts entries into calls and starts those that are full.
func (g *Gatherer[T]) add(ctx context.Context, entries []Entry[T]) []*waiting[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*waiting[T], len(entries))
	for i, en := range entries {
		all[i] = &waiting[T]{Entry: en, done: make(chan error, 1)}
		g.put(ctx, all[i])
	}
	if g.o.Linger <= 0 {
		for key, c := range g.open {
			g.start(key, c)
		}
	}
	return all
}

// put adds w to the open call of its key if there is room, else to a new one. The caller
// holds mu.
func (g *Gatherer[T]) put(ctx context.Context, w *waiting[T]) {
	c := g.open[w.Key]
	if c != nil && c.size+w.Size > g.o.Bytes {
		g.start(w.Key, c)
		c = nil
	}
	if c == nil {
		c = g.newCall(ctx, w.Key)
	}
	w.call = c
	c.waiting, c.size = append(c.waiting, w), c.size+w.Size
	c.left++
	if len(c.waiting) >= g.o.Most {
		g.start(w.Key, c)
	}
}

// newCall opens a call. The caller holds mu.
func (g *Gatherer[T]) newCall(ctx context.Context, key string) *call[T] {
	c := new(call[T])
	// Not the context of one Publish: if it ends, the call goes on for the others.
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.run = func() { g.run(ctx, c) }
	if g.o.Linger > 0 {
		c.timer = time.AfterFunc(g.o.Linger, func() { g.ripe(key, c) })
	}
	g.open[key] = c
	return c
}

// ripe starts a call whose time has come.
func (g *Gatherer[T]) ripe(key string, c *call[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open[key] == c {
		g.start(key, c)
	}
}

// start makes the call in a goroutine of its own. The caller holds mu.
func (g *Gatherer[T]) start(key string, c *call[T]) {
	delete(g.open, key)
	if c.timer != nil {
		c.timer.Stop()
	}
	g.started[c] = true
	g.tasks.Go(func() {
		c.run()
		c.cancel()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.started, c)
	})
}

// run waits for its turn and sends those entries whose Publish still waits.
func (g *Gatherer[T]) run(ctx context.Context, c *call[T]) {
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return
	}
	entries, sent := g.left(c)
	if len(entries) == 0 {
		return
	}
	defer func() {
		undecided := errUndecided
		if p := recover(); p != nil {
			undecided = filter.NewPanic(p) // here, for the stack of Send; the lanes report it
		}
		for _, w := range sent {
			g.decide(w, undecided)
		}
	}()
	g.o.Send(ctx, entries, func(i int, err error) { g.decide(sent[i], err) })
}

// errUndecided is what an entry gets of which Send has not said what has become of it.
var errUndecided error = errors.New("the call has not said what has become of the event")

// decide says once what has become of an entry.
func (g *Gatherer[T]) decide(w *waiting[T], err error) {
	select {
	case w.done <- err:
	default: // it is decided
	}
	g.leave(w)
}

// left returns the entries of a call whose Publish still waits.
func (g *Gatherer[T]) left(c *call[T]) (entries []T, list []*waiting[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range c.waiting {
		if !w.gone {
			entries, list = append(entries, w.Value), append(list, w)
		}
	}
	return entries, list
}

// Close ends the calls that are under way. No Publish may be under way, nor follow: so no call
// is open, as each has an entry for which a Publish waits.
func (g *Gatherer[T]) Close() {
	g.mu.Lock()
	for c := range g.started {
		c.cancel()
	}
	g.mu.Unlock()
	g.tasks.Wait()
}
