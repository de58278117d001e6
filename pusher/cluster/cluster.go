// Package cluster knows which instances of eventpusher are alive, which of them holds the
// link to the XMPP server, and for how long this one may act.
//
// The state is in a stream of NATS: a heartbeat record of each instance, and a record that
// says who holds the link. An instance expires for the others when its heartbeat has not
// changed for a while; they count only the time during which they could read. It stops by
// itself earlier, counted from when it sent the last heartbeat that was confirmed. All clocks
// are boot time, and nobody compares his own with another one's.
//
// Leases only decide when an instance takes over. What a loser still writes is refused by
// the servers: the record of the link has a sequence, the term, which the holder's writes
// name as their condition.
package cluster

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nuid"

	"eventpusher/internal/natsrpc"
)

const (
	snapshotPause = 250 * time.Millisecond
	// heardStep bounds the silence that one snapshot can prove.
	heardStep = time.Second
	// forgotten is when the servers remove the record of an instance that is gone.
	forgotten = 10 * time.Minute
)

// started is the origin of monotonic.
var started = time.Now()

func monotonic() time.Duration { return time.Since(started) }

// Right is something that an instance may do while its heartbeat is confirmed.
type Right int

// The rights.
const (
	Link    Right = iota // to hold the link
	Deliver              // to deliver events
	rights
)

// Lease says how long a right lasts.
type Lease struct {
	// Expire is how long the others must have heard nothing before the right is free.
	Expire time.Duration
	// Stop is when the owner stops by itself; less than Expire.
	Stop time.Duration
}

// Options say how a Cluster behaves.
type Options struct {
	Store *natsrpc.Store
	// Prefix begins the subjects. The stream keeps one message a subject and allows
	// expiring messages.
	Prefix string
	Name   string // of this instance, for people
	// Uses returns the names of what this instance delivers to. It must not block.
	Uses   func() []string
	Leases [rights]Lease
	// Watch are further filters whose records Changed gets with each snapshot.
	Watch []string
	// Own returns the mark of this instance, which its heartbeats carry. It must not block.
	Own func() uint64
	// Changed is called after each snapshot, by one goroutine. It may block for a moment.
	Changed func(View)
	Log     *slog.Logger
}

// View is a snapshot of the shared state. It may be old.
type View struct {
	Records []natsrpc.Record // of Watch
	Alive   []string         // ids of the instances that may deliver and do not retire, sorted
}

// Cluster is this instance among the others. Its methods are safe for concurrent use.
type Cluster struct {
	o   Options
	id  string
	now func() time.Duration // boot, but for tests

	beating sync.Mutex // one heartbeat at a time

	mu        sync.Mutex
	running   bool          // Run was called
	confirmed time.Duration // when the last confirmed heartbeat was sent; 0: none
	seen      uint64        // the greatest sequence that was seen in the stream
	gens      [rights]uint64
	members   map[string]*member
	link      record
	linkSeq   uint64
	looked    time.Duration // when the last snapshot was taken; 0: none
	changed   chan struct{} // closed when a snapshot has come
	term      context.Context
	endTerm   context.CancelFunc
	holding   uint64 // the term in which this instance holds the link; 0: it does not
	retiring  bool
	leaving   bool
}

// member is another instance, or this one, as the snapshots show it.
type member struct {
	heartbeat
	seq    uint64
	silent time.Duration // heard nothing for so long
	there  bool          // it has a record
}

// heartbeat is the content of an instance's record.
type heartbeat struct {
	Name     string   `json:"name"`
	Uses     []string `json:"uses"`
	Retiring bool     `json:"retiring"` // never left out: false takes back true
	Mark     uint64   `json:"mark"`     // never falls
}

// record says who holds the link.
type record struct {
	Owner string `json:"owner,omitempty"` // id; empty: nobody
	Name  string `json:"name,omitempty"`
}

// New returns a Cluster that does nothing before Run.
func New(o Options) *Cluster {
	c := &Cluster{o: o, id: nuid.Next(), now: boot, members: make(map[string]*member), changed: make(chan struct{})}
	c.term, c.endTerm = context.WithCancel(context.Background())
	return c
}

// ID tells this instance from all others, and from itself before a restart.
func (c *Cluster) ID() string { return c.id }

func (c *Cluster) memberSubject(id string) string { return c.o.Prefix + ".member." + id }
func (c *Cluster) linkSubject() string            { return c.o.Prefix + ".link" }

// beat is the time between two heartbeats.
func (c *Cluster) beat() time.Duration {
	least := c.o.Leases[0].Stop
	for _, l := range c.o.Leases {
		least = min(least, l.Stop)
	}
	return min(least/5, time.Second)
}

// Run sends heartbeats and takes snapshots until ctx ends.
func (c *Cluster) Run(ctx context.Context) {
	c.mu.Lock()
	c.running = true
	c.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { every(ctx, c.beat(), func() { _ = c.Announce(ctx) }) })
	both.Go(func() { every(ctx, snapshotPause, func() { c.look(ctx) }) })
	both.Wait()
}

// every calls f until ctx ends, with a pause after each call.
func every(ctx context.Context, pause time.Duration, f func()) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			f()
			timer.Reset(pause)
		}
	}
}

// Announce renews this instance's record now: from then on the others see what it uses. Before
// Run the record says that the instance retires, so that no view counts it yet. An error says
// that the record may not be stored. After Leave Announce does nothing.
func (c *Cluster) Announce(ctx context.Context) error {
	c.beating.Lock()
	defer c.beating.Unlock()
	c.mu.Lock()
	leaving, retiring, seen := c.leaving, c.retiring || !c.running, c.seen
	c.mu.Unlock()
	if leaving {
		return nil
	}
	data, _ := json.Marshal(heartbeat{c.o.Name, c.o.Uses(), retiring, c.o.Own()}) // it cannot fail
	sent := c.now()
	ctx, cancel := context.WithTimeout(ctx, 2*c.beat())
	defer cancel()
	seq, err := c.o.Store.Write(ctx, natsrpc.NewMsg(c.memberSubject(c.id), data, natsrpc.Expires(forgotten)))
	if err == nil {
		c.confirm(sent, seen, seq)
	}
	return err
}

// confirm notes that a heartbeat sent at that time is stored. A right that has lapsed since
// the last one begins anew: what was held by it is gone.
//
// seen is the greatest sequence that was seen before it was sent. If its own is not greater,
// the servers have lost the end of the stream in a power cut, and records there that were
// confirmed. So all begins anew.
func (c *Cluster) confirm(sent time.Duration, seen, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	cut := seq <= seen
	for r := range c.gens {
		if cut || c.confirmed == 0 || now-c.confirmed >= c.o.Leases[r].Stop {
			c.gens[r]++
		}
	}
	if cut {
		c.linkSeq, c.seen = 0, 0
		for _, m := range c.members {
			m.seq = 0
		}
	}
	c.confirmed, c.seen = max(c.confirmed, sent), max(c.seen, seq)
}

// Grant returns a number for a right that this instance has now; Valid tells how long.
// ok is false while it has not.
func (c *Cluster) Grant(r Right) (gen uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gens[r], c.validLocked(r, c.gens[r])
}

// Valid reports whether the right that Grant has returned has never lapsed since.
func (c *Cluster) Valid(r Right, gen uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.validLocked(r, gen)
}

func (c *Cluster) validLocked(r Right, gen uint64) bool {
	return c.confirmed != 0 && gen == c.gens[r] && c.now()-c.confirmed < c.o.Leases[r].Stop
}

// look takes a snapshot.
func (c *Cluster) look(ctx context.Context) {
	filters := append([]string{c.o.Prefix + ".member.*", c.linkSubject()}, c.o.Watch...)
	records, err := c.o.Store.Last(ctx, filters...)
	if err != nil {
		return // Valid and the connection's state tell
	}
	if view := c.take(records); c.o.Changed != nil {
		c.o.Changed(view)
	}
}

// take enters a snapshot and returns what it says to the owner of Watch.
func (c *Cluster) take(records []natsrpc.Record) (view View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	heard := min(now-c.looked, heardStep)
	if c.looked == 0 {
		heard = 0
	}
	c.looked = now
	for _, m := range c.members {
		m.silent += heard
		m.there = false
	}
	link, linkSeq := record{}, uint64(0)
	for _, r := range records {
		c.seen = max(c.seen, r.Seq)
		if id, isMember := strings.CutPrefix(r.Subject, c.o.Prefix+".member."); isMember {
			c.heard(id, &r)
		} else if r.Subject == c.linkSubject() {
			if json.Unmarshal(r.Data, &link) == nil {
				linkSeq = r.Seq
			}
		} else {
			view.Records = append(view.Records, r)
		}
	}
	maps.DeleteFunc(c.members, func(_ string, m *member) bool { return !m.there && m.silent > forgotten })
	c.setLink(link, linkSeq)
	view.Alive = slices.DeleteFunc(c.aliveLocked(), func(id string) bool {
		return c.members[id].Retiring || id == c.id && c.retiring
	})
	close(c.changed)
	c.changed = make(chan struct{})
	return view
}

// heard notes a heartbeat. A replica that lags may show an old one again.
func (c *Cluster) heard(id string, r *natsrpc.Record) {
	if len(r.Data) == 0 {
		return // it has left
	}
	m := c.known(id)
	m.there = true
	if r.Seq > m.seq {
		mark := m.Mark
		m.seq, m.silent = r.Seq, 0
		_ = json.Unmarshal(r.Data, &m.heartbeat) // if it is damaged, the heart beats all the same
		m.Mark = max(m.Mark, mark)
	}
}

// known returns a member. One that has no record is silent from now on.
func (c *Cluster) known(id string) *member {
	m := c.members[id]
	if m == nil {
		m = &member{}
		c.members[id] = m
	}
	return m
}

// Expired reports whether an instance has been silent for longer than the lease of a right.
func (c *Cluster) Expired(id string, r Right) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known(id).silent >= c.o.Leases[r].Expire
}

func (c *Cluster) aliveLocked() (ids []string) {
	for id, m := range c.members {
		if m.there && m.silent < c.o.Leases[Deliver].Expire {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Size returns how many instances are alive.
func (c *Cluster) Size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.aliveLocked())
}

// Mark returns the greatest mark of all instances.
func (c *Cluster) Mark() (mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		mark = max(mark, m.Mark)
	}
	return mark
}

// Retire says to all instances that this one is about to leave: it keeps what it has, but no
// view counts it any more.
func (c *Cluster) Retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retiring = true
}

// Leave removes this instance's record. No heartbeat follows.
func (c *Cluster) Leave(ctx context.Context) error {
	c.mu.Lock()
	c.leaving = true
	signed := c.confirmed != 0
	c.confirmed = 0
	c.mu.Unlock()
	if !signed {
		return nil
	}
	_, err := c.o.Store.Write(ctx, natsrpc.NewMsg(c.memberSubject(c.id), nil, natsrpc.Expires(time.Second)))
	return err
}
