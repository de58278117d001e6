package xmppside

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// turnLanes is how many jobs of turns are under way at once. A store that writes to the
// disk takes many changes with one write, and 60 a second if they come one by one.
const turnLanes = 64

// turnLimits bound what waits.
type turnLimits struct {
	each  int // jobs of one caller
	all   int // jobs of all
	bytes int // of all requests that wait or are under way
}

// turns carry out what many ask for at the same time, and what one caller asks for in the
// order in which it came. A caller has one job under way, so one that is slow holds up no
// other. Its methods are safe for concurrent use.
type turns struct {
	limits turnLimits
	ready  chan *caller // each has a job that waits and none under way

	mu             sync.Mutex
	callers        map[string]*caller // those that have a job
	waiting, bytes int
}

type caller struct {
	name string
	jobs []turn // that wait
}

type turn struct {
	size int
	do   func(context.Context)
}

func newTurns(l turnLimits) *turns {
	return &turns{limits: l, ready: make(chan *caller, l.all), callers: make(map[string]*caller)}
}

// enter has a job done for the caller of that name. size is how many bytes the job keeps. It
// never blocks; false means that too much waits.
func (t *turns) enter(name string, size int, job func(context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.callers[name]
	if t.waiting >= t.limits.all || t.bytes+size > t.limits.bytes || t.limits.each == 0 || c != nil && len(c.jobs) >= t.limits.each {
		return false
	}
	t.waiting++
	t.bytes += size
	if c != nil {
		c.jobs = append(c.jobs, turn{size, job})
		return true
	}
	c = &caller{name: name, jobs: []turn{{size, job}}}
	t.callers[name] = c
	t.ready <- c // there is room: it holds no more callers than jobs wait
	return true
}

// run does the jobs until ctx ends, and then those that wait, with the ctx that has ended.
func (t *turns) run(ctx context.Context) error {
	var all errgroup.Group
	for range turnLanes {
		all.Go(func() error {
			for {
				select {
				case c := <-t.ready:
					t.take(ctx, c)
					continue
				default:
				}
				select {
				case c := <-t.ready:
					t.take(ctx, c)
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	return all.Wait()
}

// take does a caller's next job.
func (t *turns) take(ctx context.Context, c *caller) {
	t.mu.Lock()
	job := c.jobs[0]
	c.jobs = c.jobs[1:]
	t.waiting--
	t.mu.Unlock()
	job.do(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes -= job.size
	if len(c.jobs) > 0 {
		t.ready <- c
		return
	}
	delete(t.callers, c.name)
}
