package devices

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
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
	// paid is the notification that the last token was for, until it is delivered: its
	// next attempt needs no other.
	paid string
	// shown and silent are the times of the newest notifications that wait.
	shown, silent time.Time
}

func newPacer(burst int, interval, maxAge time.Duration) *pacer {
	of, _ := simplelru.NewLRU[string, *pace](paceKept, nil) // it fails for no size but one below 1
	return &pacer{every: rate.Every(interval), burst: burst, maxAge: maxAge, of: of}
}

// enter asks whether the device may be told m now. It returns ErrCoalesced when a
// newer one waits that says at least as much, and how long m has to wait if it is
// that newer one.
func (p *pacer) enter(node string, m *Message, now time.Time) (wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.of.Get(node)
	if !ok {
		d = &pace{limiter: rate.NewLimiter(p.every, p.burst)}
		p.of.Add(node, d)
	}
	if d.paid == m.EventID {
		return 0, nil
	}
	d.forget(now.Add(-p.maxAge))
	silent := m.Summary.Silent()
	// What is shown wakes the application as well.
	if silent && (!d.shown.IsZero() || m.Time.Before(d.silent)) || !silent && m.Time.Before(d.shown) {
		return 0, ErrCoalesced
	}
	r := d.limiter.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		*d.mark(m) = m.Time
		return wait, nil
	}
	d.paid = m.EventID
	d.silent = time.Time{}
	if !silent {
		d.shown = time.Time{}
	}
	return 0, nil
}

// forget drops marks of notifications that nobody delivers any more.
func (d *pace) forget(before time.Time) {
	if d.shown.Before(before) {
		d.shown = time.Time{}
	}
	if d.silent.Before(before) {
		d.silent = time.Time{}
	}
}

// left says what became of m: done, or still to be delivered, which needs no other
// token. While it waits, it too stands for the older ones.
func (p *pacer) left(node string, m *Message, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.of.Peek(node)
	switch {
	case !ok:
	case !done:
		if mark := d.mark(m); m.Time.After(*mark) {
			*mark = m.Time
		}
	default:
		if d.paid == m.EventID {
			d.paid = ""
		}
		if mark := d.mark(m); !mark.After(m.Time) {
			*mark = time.Time{}
		}
	}
}

// mark returns where the time of a notification such as m stands.
func (d *pace) mark(m *Message) *time.Time {
	if m.Summary.Silent() {
		return &d.silent
	}
	return &d.shown
}
