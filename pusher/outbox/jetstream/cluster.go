package jetstream

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	js "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"eventpusher/pusher/outbox"
)

// Who does what is decided by two kinds of keys in the cluster bucket: each
// instance renews a sign of life, and claims say which instance holds the link
// and each partition. A claim is free when its owner has given it up or is dead.
//
// An instance that could not renew its sign of life for fence() stops everything
// by itself and begins anew under another id. The others take its claims after
// Takeover, which is longer by outbox.LinkGrace. Clocks are compared with
// nobody's: each side measures with its own.
//
// That an instance is silent is evidence only while we would hear it. The bucket
// is one stream, so when the watch shows our own sign of life, it has shown
// everything before it. Hence the silence of others is measured up to when we
// sent the last one that came back.

// The keys of the cluster bucket.
const (
	instancePrefix = "instance."
	claimPrefix    = "claim."
	claimLink      = "link"
)

// sign is a sign of life.
type sign struct {
	Name     string   `json:"name"`
	Backends []string `json:"backends"`
	Beat     uint64   `json:"beat"`
}

// member is an instance as the watch shows it.
type member struct {
	sign
	id       string
	revision uint64
	seen     time.Time
}

func readSign(b []byte) (s sign, ok bool) { return s, json.Unmarshal(b, &s) == nil }

// claim is the right to one thing.
type claim struct {
	owner    string // empty: nobody
	revision uint64
}

// held is what this instance has claimed.
type held struct {
	stop context.CancelFunc
	done chan struct{} // closed when everything has stopped
	own  *owned        // nil for the link
}

// cluster is this instance's view of all.
type cluster struct {
	e       *Engine
	changed chan struct{}

	mu       sync.Mutex
	id       string
	alive    context.Context // until we lose touch or leave
	die      context.CancelFunc
	timer    *time.Timer // dies when it fires
	renewed  time.Time   // when the sign of life was sent that was confirmed last; zero: none under this id
	beats    uint64
	sent     map[uint64]time.Time // by beat, until it comes back
	echo     time.Time            // when the last one that came back was sent
	complete bool                 // the watch has shown what there was at its start
	members  map[string]*member
	claims   map[string]*claim
	mine     map[string]*held
	wantLink bool
	link     chan context.Context // to Lead, capacity 1
	leaving  bool
}

func newCluster(e *Engine) *cluster {
	c := &cluster{
		e: e, changed: make(chan struct{}, 1), members: make(map[string]*member), claims: make(map[string]*claim),
		mine: make(map[string]*held), link: make(chan context.Context, 1),
	}
	c.reborn()
	return c
}

// reborn begins a life under a new id.
func (c *cluster) reborn() {
	c.id = nuid.Next()
	c.alive, c.die = context.WithCancel(c.e.ctx)
	c.renewed, c.sent = time.Time{}, make(map[uint64]time.Time)
}

// token tells this life of this instance from all others.
func (c *cluster) token() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// touch reports whether we are within the time of our last sign of life. Both
// clocks have to agree: the monotonic one stands still while a machine sleeps.
func (c *cluster) touch() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.touchLocked(time.Now())
}

func (c *cluster) touchLocked(now time.Time) bool {
	fence := c.e.o.fence()
	return !c.renewed.IsZero() && c.alive.Err() == nil && now.Sub(c.renewed) < fence && now.Round(0).Sub(c.renewed.Round(0)) < fence
}

// lose ends this life: whatever we hold stops.
func (c *cluster) lose() {
	c.mu.Lock()
	if c.leaving || c.renewed.IsZero() || c.touchLocked(time.Now()) {
		c.mu.Unlock()
		return
	}
	c.die()
	partitions := len(c.mine)
	c.mine = make(map[string]*held)
	c.reborn()
	c.mu.Unlock()
	c.e.log.Warn("out of touch with NATS for too long: another instance may take over now, so this one has stopped delivering", "claims", partitions)
	c.e.notifyAll()
}

// deposed is called when somebody else has written what only we may write.
func (c *cluster) deposed() {
	c.mu.Lock()
	c.die()
	c.mu.Unlock()
	c.lose()
}

// run gives signs of life and acts on what it sees, until the engine closes.
func (c *cluster) run() {
	tick := time.NewTicker(c.e.o.beat())
	defer tick.Stop()
	var beating sync.WaitGroup
	defer beating.Wait()
	busy := make(chan struct{}, 1)
	for {
		// A request that hangs must not keep us from seeing that time runs out.
		select {
		case busy <- struct{}{}:
			beating.Go(func() {
				c.beat()
				<-busy
				signal(c.changed)
			})
		default:
		}
		for again := true; again; {
			select {
			case <-c.e.ctx.Done():
				return
			case <-tick.C:
				again = false
			case <-c.changed:
				c.act()
			}
		}
	}
}

// beat gives a sign of life.
func (c *cluster) beat() {
	c.mu.Lock()
	if c.leaving {
		c.mu.Unlock()
		return
	}
	id := c.id
	c.beats++
	beat := c.beats
	sent := time.Now()
	c.sent[beat] = sent
	c.mu.Unlock()
	b, err := json.Marshal(sign{Name: c.e.o.Instance, Backends: c.e.o.Backends, Beat: beat})
	if err != nil {
		return // cannot be
	}
	ctx, cancel := context.WithTimeout(c.e.ctx, c.e.o.fence()/2)
	defer cancel()
	if _, err := c.e.set.Load().cluster.Put(ctx, instancePrefix+id, b); err != nil {
		c.e.log.Debug("no sign of life could be given", "err", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if id != c.id || !c.renewed.IsZero() && !c.touchLocked(now) || now.Sub(sent) >= c.e.o.fence() {
		return // too late: it counts for nothing
	}
	first := c.renewed.IsZero()
	c.renewed = sent
	left := time.Until(sent.Add(c.e.o.fence()))
	if first {
		c.timer = time.AfterFunc(left, c.lose)
		return
	}
	c.timer.Reset(left)
}

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

// share is how many partitions this instance should have.
func (c *cluster) share() int {
	ids := c.living()
	total := len(c.e.set.Load().logs)
	n := total / len(ids)
	if slices.Index(ids, c.id) < total%len(ids) {
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
	id, revision := c.id, uint64(0)
	if k := c.claims[what]; k != nil {
		revision = k.revision
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(c.e.ctx, c.e.o.fence()/2)
	defer cancel()
	revision, err := c.e.set.Load().cluster.Update(ctx, claimPrefix+what, []byte(id), revision)
	if err != nil {
		c.e.log.Debug("a claim was not to be had", "claim", what, "err", err)
		return // somebody was faster, or the watch will tell
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(what, id, revision)
	if id == c.id && c.mine[what] == nil && c.touchLocked(time.Now()) && !c.leaving {
		c.begin(what)
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
		case c.link <- ctx:
		default: // Lead has not taken the last one, which is over
			<-c.link
			c.link <- ctx
		}
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

// Standing implements outbox.Elector.
func (e *Engine) Standing() outbox.Standing {
	c := e.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	s := outbox.Standing{Instance: e.o.Instance, Leading: c.mine[claimLink] != nil && c.touchLocked(time.Now()), Of: e.o.Partitions}
	if e.set.Load() == nil {
		return s
	}
	s.Instances = len(c.living())
	for _, h := range c.mine {
		if h.own != nil {
			s.Partitions++
		}
	}
	if k := c.claims[claimLink]; s.Leading {
		s.Leader = s.Instance
	} else if k != nil && k.owner != c.id && c.lives(k.owner) {
		s.Leader = c.members[k.owner].Name
	}
	return s
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// signal wakes whoever waits on a channel of capacity one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
