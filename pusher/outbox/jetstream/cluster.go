package jetstream

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/nats-io/nuid"
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
	term     context.Context // until another instance has the link, or nobody
	endTerm  context.CancelFunc
	wantLink bool
	link     chan context.Context // to Lead, capacity 1
	leaving  bool
	rewatch  context.CancelFunc // ends the watch, to begin a new one
	signing  sync.WaitGroup     // a sign of life on its way; begins only while leaving is unset
}

func newCluster(e *Engine) *cluster {
	c := &cluster{
		e: e, changed: make(chan struct{}, 1), members: make(map[string]*member), claims: make(map[string]*claim),
		mine: make(map[string]*held), link: make(chan context.Context, 1),
	}
	c.reborn()
	c.term, c.endTerm = context.WithCancel(context.Background())
	return c
}

// linkTerm returns a context that ends when the link changes hands, as far as this
// instance knows of it.
func (c *cluster) linkTerm() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term
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

// lookEvery is after how many signs of life everything is looked at again.
const lookEvery = 4

// run gives signs of life and acts on what it sees, until the engine closes.
func (c *cluster) run() {
	tick := time.NewTicker(c.e.o.beat())
	defer tick.Stop()
	var beating sync.WaitGroup
	defer beating.Wait()
	busy := make(chan struct{}, 1)
	round := 0 // changes only while nobody is busy
	for {
		// A request that hangs must not keep us from seeing that time runs out.
		select {
		case busy <- struct{}{}:
			round++
			beating.Go(func() {
				c.beat()
				if round%lookEvery == 0 {
					c.lookAgain()
				}
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
	c.mu.Lock()
	if c.leaving { // whoever leaves removes its sign, which must not come back
		c.mu.Unlock()
		return
	}
	c.signing.Add(1)
	c.mu.Unlock()
	_, err = c.e.set.Load().cluster.Put(ctx, instancePrefix+id, b)
	c.signing.Done()
	if err != nil {
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
