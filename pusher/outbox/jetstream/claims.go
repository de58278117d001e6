package jetstream

import (
	"context"
	"slices"
	"strconv"
	"time"
)

// share is how many partitions this instance should have.
func (c *cluster) share() int { return shareOf(c.living(), c.id, len(c.e.set.Load().logs)) }

// shareOf divides evenly; the first of the ids have what is left over.
func shareOf(ids []string, id string, partitions int) int {
	n := partitions / len(ids)
	if slices.Index(ids, id) < partitions%len(ids) {
		n++
	}
	return n
}

// act takes and gives up claims.
func (c *cluster) act() {
	for _, what := range c.plan() {
		c.take(what)
	}
	c.bury()
}

// plan gives up what is too much and returns what to take.
func (c *cluster) plan() (take []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.complete || c.leaving || !c.touchLocked(time.Now()) {
		return nil
	}
	// What the bucket says is ours although we do not know it: an answer got lost.
	for what, k := range c.claims {
		if k.owner == c.id && c.mine[what] == nil && (what != claimLink || c.wantLink) {
			c.begin(what)
		}
	}
	free := func(what string) bool {
		k := c.claims[what]
		return c.mine[what] == nil && (k == nil || k.owner == "" || k.owner != c.id && !c.lives(k.owner))
	}
	if c.wantLink && free(claimLink) {
		take = append(take, claimLink)
	}
	partitions := 0
	for _, h := range c.mine {
		if h.own != nil && !h.own.leaving.Load() {
			partitions++
		}
	}
	share := c.share()
	for n := range c.e.set.Load().logs {
		what := strconv.Itoa(n)
		switch {
		case partitions < share && free(what):
			take = append(take, what)
			partitions++
		case partitions > share && c.mine[what] != nil && !c.mine[what].own.leaving.Swap(true):
			partitions--
			h, life := c.mine[what], c.alive
			c.e.running.Go(func() { c.handOver(life, what, h) })
		}
	}
	return take
}

// take claims something that is free.
func (c *cluster) take(what string) {
	c.mu.Lock()
	id, owner, revision := c.id, "", uint64(0)
	if k := c.claims[what]; k != nil {
		owner, revision = k.owner, k.revision
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(c.e.ctx, c.e.o.fence()/2)
	defer cancel()
	if owner != "" && !c.confirmDead(ctx, owner) {
		return
	}
	revision, err := c.e.set.Load().cluster.Update(ctx, claimPrefix+what, []byte(id), revision)
	if err != nil {
		c.e.log.Debug("a claim was not to be had", "claim", what, "err", err)
		c.look(ctx, claimPrefix+what) // somebody was faster, or we have missed something
		return
	}
	c.mu.Lock()
	c.note(what, id, revision)
	if id == c.id && c.mine[what] == nil && c.touchLocked(time.Now()) && !c.leaving {
		c.begin(what)
	}
	unwanted := what == claimLink && !c.wantLink
	c.mu.Unlock()
	if unwanted { // since it was asked for; nobody would give it up
		c.release(what)
	}
}

// begin starts what a claim allows.
func (c *cluster) begin(what string) {
	ctx, stop := context.WithCancel(c.alive)
	h := &held{stop: stop, done: make(chan struct{})}
	c.mine[what] = h
	if what == claimLink {
		close(h.done)
		select {
		case <-c.link: // Lead has not taken the last one, which is over
		default:
		}
		c.link <- ctx // there is room: nobody else sends, and the lock is held
		return
	}
	n, err := strconv.Atoi(what)
	if err != nil || n >= len(c.e.set.Load().logs) {
		close(h.done)
		return
	}
	h.own = newOwned(c.e, n)
	c.e.running.Go(func() {
		defer close(h.done)
		h.own.run(ctx)
	})
}

// handOver gives a partition to others once nothing of it is on its way.
func (c *cluster) handOver(life context.Context, what string, h *held) {
	h.own.settle(life)
	h.stop()
	<-h.done
	if life.Err() == nil {
		c.release(what)
	}
}

// release says that nobody holds a claim of ours. Until then it stays among mine,
// or plan would begin it again.
func (c *cluster) release(what string) {
	c.mu.Lock()
	h, k, id := c.mine[what], c.claims[what], c.id
	if h != nil {
		h.stop() // before anybody else can have it
	}
	done := func() {
		if c.mine[what] == h {
			delete(c.mine, what)
		}
		c.mu.Unlock()
		signal(c.changed)
	}
	if k == nil || k.owner != id {
		done()
		return
	}
	revision := k.revision
	c.mu.Unlock()
	ctx, cancel := c.e.request()
	defer cancel()
	revision, err := c.e.set.Load().cluster.Update(ctx, claimPrefix+what, nil, revision)
	c.mu.Lock()
	if err == nil {
		c.note(what, "", revision)
	}
	done()
	if err != nil {
		c.e.log.Warn("a claim could not be given up; other instances wait until they see that this one is gone", "claim", what, "err", err)
	}
}

// forgotten is after how many times Takeover the last sign of a dead instance is
// removed. By then its claims have been taken.
const forgotten = 30

// bury removes the signs of life of instances that are long dead.
func (c *cluster) bury() {
	c.mu.Lock()
	var dead []string
	for id, m := range c.members {
		if id != c.id && c.echo.Sub(m.seen) > forgotten*c.e.o.Takeover {
			dead = append(dead, id)
		}
	}
	c.mu.Unlock()
	for _, id := range dead {
		ctx, cancel := c.e.request()
		_ = c.e.set.Load().cluster.Purge(ctx, instancePrefix+id) // or the next time
		cancel()
	}
}
