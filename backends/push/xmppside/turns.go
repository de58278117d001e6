package xmppside

import (
	"context"
	"hash/maphash"

	"golang.org/x/sync/errgroup"
)

// turns carry out what many ask for at the same time, and what one of them asks for in
// the order in which it came. A store that writes to the disk takes many changes with
// one write, and 60 a second if they come one by one.
type turns struct {
	seed  maphash.Seed
	lanes []chan func(context.Context)
}

// newTurns returns turns of which so many are taken at once, and so many wait behind
// each.
func newTurns(lanes, depth int) *turns {
	t := &turns{seed: maphash.MakeSeed(), lanes: make([]chan func(context.Context), lanes)}
	for i := range t.lanes {
		t.lanes[i] = make(chan func(context.Context), depth)
	}
	return t
}

// enter has a job done for the one of that name. It never blocks; false means that too
// many wait.
func (t *turns) enter(who string, job func(context.Context)) bool {
	select {
	case t.lane(who) <- job:
		return true
	default:
		return false
	}
}

// lane returns what the jobs of the one of that name wait in, with those of some others.
func (t *turns) lane(who string) chan func(context.Context) {
	return t.lanes[maphash.String(t.seed, who)%uint64(len(t.lanes))]
}

// run does the jobs until ctx ends, and then those that wait, with the ctx that has ended.
func (t *turns) run(ctx context.Context) error {
	var all errgroup.Group
	for _, lane := range t.lanes {
		all.Go(func() error {
			for {
				select {
				case job := <-lane:
					job(ctx)
					continue
				default:
				}
				select {
				case job := <-lane:
					job(ctx)
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	return all.Wait()
}
