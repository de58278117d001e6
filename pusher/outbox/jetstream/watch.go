package jetstream

import (
	"slices"
	"strings"
	"time"

	js "github.com/nats-io/nats.go/jetstream"
)

// watch follows the cluster bucket.
func (c *cluster) watch() {
	for c.e.ctx.Err() == nil {
		w, err := c.e.set.Load().cluster.WatchAll(c.e.ctx)
		if err == nil {
			c.follow(w)
			_ = w.Stop() // it may have ended by itself
		} else {
			c.e.log.Debug("the instances cannot be watched", "err", err)
		}
		c.mu.Lock()
		c.complete = false // what comes next begins with everything there is
		c.mu.Unlock()
		pause(c.e.ctx, time.Second)
	}
}

func (c *cluster) follow(w js.KeyWatcher) {
	fresh := make(map[string]bool)
	for {
		select {
		case <-c.e.ctx.Done():
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
	if revision >= k.revision {
		k.owner, k.revision = owner, revision
	}
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
