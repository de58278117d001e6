package devices

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"

	"eventpusher/backends/push/route"
)

// paceKept is how many devices' pace is remembered; one that is forgotten may be told
// a burst again.
const paceKept = 1 << 17

// pacer limits how often each device is told something. When a device has been told
// enough, the newest notification waits and stands for the older ones.
type pacer struct {
	every  rate.Limit
	burst  int
	maxAge time.Duration

	mu sync.Mutex
	of *simplelru.LRU[string, *pace]
}

// pace is that of one device.
type pace struct {
	limiter *rate.Limiter
	route   route.Key // to its provider, when it was last told something
	// paid is the notification that the last token was for, until it is delivered: its
	// next attempt needs no other.
	paid string
	// shown and silent are about the newest notifications of each sort.
	shown, silent newest
}

// newest holds the times of the newest notification that waits, and of the newest that
// has waited and was told: both stand for all older ones.
type newest struct{ waits, told time.Time }

// covers reports whether a notification of that time is done with.
func (n *newest) covers(at time.Time) bool { return at.Before(n.waits) || at.Before(n.told) }

// fate is what became of a notification that was let through.
type fate uint8

const (
	again   fate = iota // it is still to be delivered
	told                // the provider has it
	dropped             // nobody will ever have it
)

func newPacer(burst int, interval, maxAge time.Duration) *pacer {
	of, _ := simplelru.NewLRU[string, *pace](paceKept, nil) // it fails for no size but one below 1
	return &pacer{every: rate.Every(interval), burst: burst, maxAge: maxAge, of: of}
}

// enter asks whether the device may be told m now. It returns ErrCoalesced when a
// newer one waits that says at least as much, and how long m has to wait if it is
// that newer one.
func (p *pacer) enter(node string, way route.Key, m *Message, now time.Time) (wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.of.Get(node)
	if !ok {
		d = &pace{limiter: rate.NewLimiter(p.every, p.burst)}
		p.of.Add(node, d)
	}
	d.route = way
	if d.paid == m.EventID {
		return 0, nil
	}
	d.forget(now.Add(-p.maxAge))
	sort := d.sort(m)
	// What is shown wakes the application as well.
	if sort.covers(m.Time) || sort == &d.silent && (!d.shown.waits.IsZero() || d.shown.covers(m.Time)) {
		return 0, ErrCoalesced
	}
	r := d.limiter.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		sort.waits = m.Time
		return wait, nil
	}
	d.paid = m.EventID
	if sort.waits.Equal(m.Time) {
		sort.told = m.Time
	}
	d.silent.waits = time.Time{}
	if sort == &d.shown {
		d.shown.waits = time.Time{}
	}
	return 0, nil
}

// route returns the way to the device's provider that was taken last.
func (p *pacer) route(node string) (route.Key, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.of.Peek(node)
	if !ok {
		return route.Key{}, false
	}
	return d.route, true
}

// forget drops marks of notifications that nobody delivers any more.
func (d *pace) forget(before time.Time) {
	for _, n := range [...]*newest{&d.shown, &d.silent} {
		if n.waits.Before(before) {
			n.waits = time.Time{}
		}
	}
}

// left says what became of m. One that is still to be delivered needs no other token.
// While it waits, it too stands for the older ones.
func (p *pacer) left(node string, m *Message, f fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.of.Peek(node)
	if !ok {
		return
	}
	sort := d.sort(m)
	if f == again {
		if m.Time.After(sort.waits) {
			sort.waits = m.Time
		}
		return
	}
	if d.paid == m.EventID {
		d.paid = ""
	}
	if f == told && sort.waits.Equal(m.Time) {
		sort.told = m.Time
	}
	if f == dropped && sort.told.Equal(m.Time) {
		sort.told = time.Time{} // it stands for nothing
	}
	if !sort.waits.After(m.Time) {
		sort.waits = time.Time{}
	}
}

// sort returns what is known of notifications such as m.
func (d *pace) sort(m *Message) *newest {
	if m.Summary.Silent() {
		return &d.silent
	}
	return &d.shown
}
