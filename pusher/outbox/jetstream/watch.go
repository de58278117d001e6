package jetstream

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	js "github.com/nats-io/nats.go/jetstream"
)

// watch follows the cluster bucket.
func (c *cluster) watch() {
	for c.e.ctx.Err() == nil {
		ctx, again := context.WithCancel(c.e.ctx)
		c.mu.Lock()
		c.rewatch = again
		c.mu.Unlock()
		w, err := c.e.set.Load().cluster.WatchAll(ctx)
		if err == nil {
			c.follow(ctx, w)
			_ = w.Stop() // it may have ended by itself
		} else {
			c.e.log.Debug("the instances cannot be watched", "err", err)
		}
		c.mu.Lock()
		c.complete = false // what comes next begins with everything there is
		c.mu.Unlock()
		broken := ctx.Err() == nil
		again()
		if broken {
			pause(c.e.ctx, time.Second)
		}
	}
}

// watchAgain begins a new watch: after a reconnection the old one may find out
// only much later that its consumer is gone.
func (c *cluster) watchAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rewatch != nil {
		c.rewatch()
	}
}

func (c *cluster) follow(ctx context.Context, w js.KeyWatcher) {
	fresh := make(map[string]bool)
	for {
		select {
		case <-ctx.Done():
			return
		case entry, ok := <-w.Updates():
			if !ok {
				return
			}
			c.mu.Lock()
			if entry == nil {
				// What was there before and was not shown has gone.
				for id := range c.members {
					if !fresh[instancePrefix+id] {
						delete(c.members, id)
					}
				}
				c.complete = true
			} else {
				c.see(entry)
				fresh[entry.Key()] = entry.Operation() == js.KeyValuePut
			}
			c.mu.Unlock()
			signal(c.changed)
		}
	}
}

// see notes a change of the bucket.
func (c *cluster) see(entry js.KeyValueEntry) {
	gone := entry.Operation() != js.KeyValuePut
	if id, ok := strings.CutPrefix(entry.Key(), instancePrefix); ok {
		if gone {
			delete(c.members, id)
			return
		}
		m := c.members[id]
		if m != nil && m.revision == entry.Revision() {
			return // shown again by a new watch: no news
		}
		s, ok := readSign(entry.Value())
		if !ok {
			return
		}
		c.members[id] = &member{sign: s, id: id, revision: entry.Revision(), seen: time.Now()}
		if id == c.id {
			if sent, ok := c.sent[s.Beat]; ok {
				c.echo = sent
			}
			for beat := range c.sent {
				if beat <= s.Beat {
					delete(c.sent, beat)
				}
			}
		}
		return
	}
	if what, ok := strings.CutPrefix(entry.Key(), claimPrefix); ok {
		c.note(what, string(entry.Value()), entry.Revision())
	}
}

// note takes over what is known of a claim, unless it is older than that.
func (c *cluster) note(what, owner string, revision uint64) {
	k := c.claims[what]
	if k == nil {
		k = &claim{}
		c.claims[what] = k
	}
	if revision < k.revision {
		return
	}
	if what == claimLink && owner != k.owner {
		c.endTerm()
		c.term, c.endTerm = context.WithCancel(context.Background())
	}
	k.owner, k.revision = owner, revision
}

// lives reports whether an instance may still act on its claims.
func (c *cluster) lives(id string) bool {
	m := c.members[id]
	return id == c.id || m != nil && c.echo.Sub(m.seen) < c.e.o.Takeover
}

// living returns the ids of all that live, sorted.
func (c *cluster) living() []string {
	ids := []string{c.id}
	for id := range c.members {
		if id != c.id && c.lives(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// A watch may miss a change: consumers of NATS 2.9 were seen to pass over one now
// and then. So nothing is taken from anybody without asking for the last sign of
// life, and everything is looked at again now and then.

// look reads a key again.
func (c *cluster) look(ctx context.Context, key string) {
	entry, err := c.e.set.Load().cluster.Get(ctx, key)
	if err != nil {
		return // there is none, or the next time
	}
	c.mu.Lock()
	c.see(entry)
	c.mu.Unlock()
}

// confirmDead reports whether an instance that seems dead has not given a sign of
// life that we have missed.
func (c *cluster) confirmDead(ctx context.Context, id string) bool {
	entry, err := c.e.set.Load().cluster.Get(ctx, instancePrefix+id)
	if errors.Is(err, js.ErrKeyNotFound) {
		return true
	}
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.members[id]
	if m != nil && m.revision == entry.Revision() {
		return !c.lives(id)
	}
	c.see(entry)
	return false
}

// lookAgain reads all claims and signs of life that the watch may have got wrong.
func (c *cluster) lookAgain() {
	c.mu.Lock()
	var keys []string
	for what := range c.claims {
		keys = append(keys, claimPrefix+what)
	}
	for id := range c.members {
		keys = append(keys, instancePrefix+id)
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(c.e.ctx, requestTimeout)
	defer cancel()
	for _, key := range keys {
		c.look(ctx, key)
	}
	signal(c.changed)
}
