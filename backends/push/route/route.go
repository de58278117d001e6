// Package route keeps the destinations of notifications apart: one that is slow, that
// fails or that asks for a pause delays only its own notifications.
//
// A lane waits for the answer to its notification. A destination is quick as long as its
// last answer came within a second; until it has answered once it counts as slow. What is
// under way at slow destinations has a bound, so that it never takes more than half of
// all lanes.
package route

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/net/publicsuffix"

	"eventpusher/backends"
)

// Key names a destination.
type Key struct {
	// Kind is the kind of destination, such as apns or xmpp.
	Kind string
	// Name is the application's name, or the registrable domain of a push service.
	Name string
	// Chosen says that users choose the destination, by what they register. Other
	// destinations are the operator's.
	Chosen bool
}

// String returns kind and name, for logs.
func (k Key) String() string { return k.Kind + " " + k.Name }

// Domain returns the registrable domain of a host, so that who owns a domain cannot make
// many destinations of it. Addresses and names without a public suffix are as they are.
func Domain(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if net.ParseIP(strings.Trim(host, "[]")) != nil {
		return host
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return domain
	}
	return host
}

const (
	// slowAfter is how long the answer of a quick destination may take.
	slowAfter = time.Second
	// perOwner is how many notifications of one user are under way at slow destinations
	// that users choose.
	perOwner = 4
	// kept bounds the destinations that are remembered.
	kept = 1 << 14
)

// The errors for what was not sent, or was given up, because of the destination. They
// stand in a *backends.WaitError.
var (
	ErrCrowded = errors.New("the destination is slow and has as many notifications as it may have at once")
	ErrResting = errors.New("the destination fails; it is tried again in a moment")
)

// Options configure Routes.
type Options struct {
	Lanes int          // notifications under way at once; at least 4
	Log   *slog.Logger // nil is silent
}

// Routes are the ways to all destinations. They are safe for concurrent use.
type Routes struct {
	log *slog.Logger

	mu     sync.Mutex
	all    *simplelru.LRU[Key, *destination]
	chosen pool // of slow destinations that users choose
	other  pool // of the operator's
	owners map[string]int
}

// pool bounds what is under way at slow destinations.
type pool struct{ size, taken int }

// New returns Routes.
func New(o Options) *Routes {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	size := max(o.Lanes/4, 1)
	all, _ := simplelru.NewLRU[Key, *destination](kept, nil) // it fails for no size but one below 1
	return &Routes{log: o.Log, all: all, chosen: pool{size: size}, other: pool{size: size}, owners: make(map[string]int)}
}

// Resting returns nil if the destination may be tried, else a *backends.WaitError with
// ErrResting. It costs less than to find out what would be sent.
func (r *Routes) Resting(key Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.all.Peek(key); ok && d.tripped {
		return d.resting(time.Now())
	}
	return nil
}

// Do calls send for a notification of owner, who may be empty, unless the destination
// rests or has as much under way as it may have. It blocks until send returns. The context of
// send ends after limit; zero is no limit. It also ends if a quick destination has become slow
// and has no room for the notification.
//
// The error is that of send, or a *backends.WaitError with ErrCrowded or ErrResting.
func (r *Routes) Do(ctx context.Context, key Key, owner string, limit time.Duration, send func(context.Context) error) error {
	d, p, err := r.enter(key, owner)
	if err != nil {
		return err
	}
	sending, cancel := bounded(ctx, limit)
	defer cancel()
	if !p.slow {
		timer := time.AfterFunc(slowAfter, func() { r.overdue(d, p, cancel) })
		defer timer.Stop()
	}
	err = send(sending)
	return r.leave(ctx, d, p, err)
}

func bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// pass is one notification under way.
type pass struct {
	owner string
	began time.Time
	slow  bool // it has a place in the pool
	probe bool // the destination rests; this one finds out whether it works
	over  bool // it was given up for the others, or has returned
}

// enter lets a notification in.
func (r *Routes) enter(key Key, owner string) (*destination, *pass, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.all.Get(key)
	if !ok {
		d = &destination{key: key}
		r.all.Add(key, d)
	}
	now := time.Now()
	if err := d.resting(now); err != nil {
		return nil, nil, err
	}
	p := &pass{owner: owner, began: now, probe: d.tripped}
	if !d.quick && !r.takeSlow(d, p) {
		return nil, nil, crowded()
	}
	d.probing = d.probing || p.probe
	return d, p, nil
}

// crowded returns the error of what finds no place.
func crowded() error {
	return backends.Wait(slowAfter+rand.N(2*slowAfter), ErrCrowded)
}

// takeSlow gives a notification a place in the pool and reports whether there is one. A
// destination that users choose has at most as many places as it leaves free.
func (r *Routes) takeSlow(d *destination, p *pass) bool {
	places := r.pool(d)
	free := places.size - places.taken
	switch {
	case free < 1, d.key.Chosen && d.slow >= free && d.slow > 0:
		return false
	case d.key.Chosen && p.owner != "" && r.owners[p.owner] >= perOwner:
		return false
	}
	places.taken++
	d.slow++
	if p.owner != "" {
		r.owners[p.owner]++
	}
	p.slow = true
	return true
}

func (r *Routes) pool(d *destination) *pool {
	if d.key.Chosen {
		return &r.chosen
	}
	return &r.other
}

// overdue is called when the answer of a quick destination takes long.
func (r *Routes) overdue(d *destination, p *pass, giveUp context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.over {
		return
	}
	d.quick = false
	if !r.takeSlow(d, p) {
		p.over = true
		giveUp()
	}
}

// leave notes what became of a notification.
func (r *Routes) leave(ctx context.Context, d *destination, p *pass, err error) error {
	now := time.Now()
	r.mu.Lock()
	givenUp := p.over && err != nil
	p.over = true
	if p.slow {
		r.pool(d).taken--
		d.slow--
		if p.owner != "" {
			if r.owners[p.owner]--; r.owners[p.owner] == 0 {
				delete(r.owners, p.owner)
			}
		}
	}
	if p.probe {
		d.probing = false
	}
	var said func()
	switch {
	case givenUp:
		err = crowded()
	case err != nil && ctx.Err() != nil: // the end has come: that says nothing
	default:
		d.quick = now.Sub(p.began) < slowAfter
		said = d.answered(p, err, now, r.log)
	}
	r.mu.Unlock()
	if said != nil {
		said()
	}
	return err
}
