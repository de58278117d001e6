package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// releaseTimeout bounds the attempt to give the link away in order.
const releaseTimeout = 2 * time.Second

// watchPause is the time between two looks at whether the link may still be held.
const watchPause = 50 * time.Millisecond

// LinkSubject is the subject of the record that says who holds the link. Its sequence is the
// term.
func (c *Cluster) LinkSubject() string { return c.linkSubject() }

// setLink enters who holds the link. c.mu is held.
func (c *Cluster) setLink(r record, seq uint64) {
	if seq < c.linkSeq {
		return // a replica that lags
	}
	over := seq != c.linkSeq && r.Owner != c.link.Owner
	c.link, c.linkSeq, c.seen = r, seq, max(c.seen, seq)
	if r.Owner != "" && r.Owner != c.id && c.known(r.Owner).silent >= c.o.Leases[Link].Expire {
		over = true
	}
	if over {
		c.endTerm()
		c.term, c.endTerm = context.WithCancel(context.Background())
	}
}

// Term returns a context that ends when the link changes hands, or its holder expires.
func (c *Cluster) Term() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term
}

// Lead calls lead whenever this instance has acquired the link, until ctx ends. term is a
// number that grows with each holder. lead's context ends when the lease does, or another
// instance has acquired the link; lead must let go of the link within outbox.LinkGrace. Lead
// returns what lead has returned last, once that is an error or ctx has ended.
func (c *Cluster) Lead(ctx context.Context, lead func(ctx context.Context, term uint64) error) error {
	for {
		term, gen, ok := c.acquire(ctx)
		if !ok {
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		holding, stop := context.WithCancel(ctx)
		go c.watchLink(holding, stop, term, gen)
		err := lead(holding, term)
		stop()
		c.release(term)
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// acquire waits for a snapshot and tries to get the link if it is free.
func (c *Cluster) acquire(ctx context.Context) (term, gen uint64, ok bool) {
	c.mu.Lock()
	changed := c.changed
	c.mu.Unlock()
	select {
	case <-ctx.Done():
		return 0, 0, false
	case <-changed:
	}
	c.mu.Lock()
	owner, seq := c.link.Owner, c.linkSeq
	free := owner == "" || owner == c.id || c.known(owner).silent >= c.o.Leases[Link].Expire
	gen = c.gens[Link]
	free = free && !c.leaving && c.validLocked(Link, gen)
	c.mu.Unlock()
	if !free {
		return 0, 0, false
	}
	data, _ := json.Marshal(record{Owner: c.id, Name: c.o.Name}) // texts: it cannot fail
	writing, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	term, err := c.o.Store.Write(writing, natsrpc.NewMsg(c.linkSubject(), data, natsrpc.AfterSubject(seq)))
	if err != nil {
		return 0, 0, false // if it is stored all the same, the next snapshot shows it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = term
	c.setLink(record{Owner: c.id, Name: c.o.Name}, term)
	return term, gen, true
}

// watchLink ends the term of a holder whose lease is over, or who was replaced.
func (c *Cluster) watchLink(ctx context.Context, stop context.CancelFunc, term, gen uint64) {
	every(ctx, watchPause, func() {
		c.mu.Lock()
		replaced := c.linkSeq > term
		c.mu.Unlock()
		if replaced || !c.Valid(Link, gen) {
			stop()
		}
	})
}

// release gives the link away, unless another instance has it.
func (c *Cluster) release(term uint64) {
	c.mu.Lock()
	c.holding = 0
	replaced := c.linkSeq > term
	c.mu.Unlock()
	if replaced {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	data, _ := json.Marshal(record{})
	_, err := c.o.Store.Write(ctx, natsrpc.NewMsg(c.linkSubject(), data, natsrpc.AfterSubject(term)))
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		c.o.Log.Debug("the link could not be given away; others take it when the lease is over", "err", err)
	}
}

// Holding returns the term in which this instance holds the link, 0 if it does not.
func (c *Cluster) Holding() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holding
}

// Standing returns how this instance stands among the others, but for its partitions.
func (c *Cluster) Standing() outbox.Standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := outbox.Standing{Instance: c.o.Name, Instances: len(c.aliveLocked())}
	s.Leading = c.holding != 0 && c.validLocked(Link, c.gens[Link])
	switch owner := c.link.Owner; {
	case s.Leading:
		s.Leader = s.Instance
	case owner != "" && owner != c.id && c.known(owner).silent < c.o.Leases[Link].Expire:
		s.Leader = c.link.Name
	}
	return s
}
