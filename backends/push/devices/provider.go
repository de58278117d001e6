package devices

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/sony/gobreaker/v2"

	"eventpusher/backends"
	"eventpusher/backends/push/notify"
)

const (
	// tripFailures in a row stop all sends for restFor; then one at a time tries.
	tripFailures = 5
	restFor      = 5 * time.Second
	// placeWait is how long a notification waits for a place: at a provider that works,
	// one is free in milliseconds.
	placeWait = 250 * time.Millisecond
	// groupsKept bounds the services that are remembered: those of Web Push are
	// whatever users name.
	groupsKept = 4096
	// maxDoubts is how many dead targets in a row are believed of a provider that
	// would say the same if we were the ones who are set up wrongly.
	maxDoubts = 5
)

// errBusy and errResting are why a notification waits for its provider.
var (
	errBusy    = errors.New("the provider has as many notifications as it may have at once")
	errResting = errors.New("the provider fails; it is asked again in a moment")
)

// provider is one application's way to one provider. What happens to it concerns no
// other.
type provider struct {
	name       string
	sender     notify.Sender
	perGroup   int
	log        *slog.Logger
	complaints *complaints

	all crowd

	mu     sync.Mutex
	groups *simplelru.LRU[string, *group]
	// succeeded says that we are set up rightly; doubts counts doubtful deaths since.
	succeeded bool
	doubts    int
}

// group is one service of a provider: all of Apple's or Google's, one push service of
// Web Push.
type group struct {
	crowd
	name    string // the host of a push service; empty: the provider is its only one
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	// failure is what happened last that was not the fault of one notification.
	failure atomic.Pointer[error]
}

// crowd bounds what is under way at once.
type crowd struct {
	places chan struct{}
	// slow says that nobody gets a place by waiting for a moment.
	slow atomic.Bool
}

// enter takes a place, for which it waits a moment unless that is in vain.
func (c *crowd) enter(ctx context.Context) bool {
	select {
	case c.places <- struct{}{}:
		return true
	default:
	}
	if c.slow.Load() {
		return false
	}
	timer := time.NewTimer(placeWait)
	defer timer.Stop()
	select {
	case c.places <- struct{}{}:
		return true
	case <-timer.C:
		c.slow.Store(true)
	case <-ctx.Done():
	}
	return false
}

func (c *crowd) leave(quick bool) {
	<-c.places
	if quick {
		c.slow.Store(false)
	}
}

func newProvider(app string, kind notify.Kind, s notify.Sender, log *slog.Logger) *provider {
	groups, _ := simplelru.NewLRU[string, *group](groupsKept, nil) // it fails for no size but one below 1
	p := &provider{name: app + "/" + string(kind), sender: s, perGroup: places, groups: groups, log: log, complaints: newComplaints(log)}
	all := places
	if kind == notify.WebPush {
		all, p.perGroup = placesAtOrigins, placesPerOrigin
	}
	p.all.places = make(chan struct{}, all)
	return p
}

// groupOf returns the service that a target belongs to.
func groupOf(t *notify.Target) string {
	if t.Kind != notify.WebPush {
		return ""
	}
	u, err := url.Parse(t.Address.Reveal())
	if err != nil {
		return ""
	}
	return u.Host
}

// enter takes a place, or returns how long to wait for one and why. leave gives it
// back with what became of the notification.
func (p *provider) enter(ctx context.Context, t *notify.Target) (leave func(error), err error) {
	g := p.group(groupOf(t))
	if !g.enter(ctx) {
		return nil, backends.Wait(time.Second, errBusy)
	}
	if !p.all.enter(ctx) {
		g.leave(false)
		return nil, backends.Wait(time.Second, errBusy)
	}
	done, err := g.breaker.Allow()
	if err != nil {
		g.leave(true)
		p.all.leave(true)
		return nil, backends.Wait(restFor, errResting)
	}
	began := time.Now()
	return func(err error) {
		quick := time.Since(began) < patience
		g.leave(quick)
		p.all.leave(quick)
		if !aboutOne(err) && !errors.Is(err, context.Canceled) {
			g.failure.Store(&err)
		}
		done(err)
		if err == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.succeeded, p.doubts = true, 0
		}
	}, nil
}

func (p *provider) group(name string) *group {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.groups.Get(name)
	if !ok {
		g = &group{name: name}
		g.breaker = p.newBreaker(g)
		g.places = make(chan struct{}, p.perGroup)
		p.groups.Add(name, g)
	}
	return g
}

func (p *provider) newBreaker(g *group) *gobreaker.TwoStepCircuitBreaker[struct{}] {
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: p.name, MaxRequests: 1, Timeout: restFor,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripFailures },
		IsSuccessful: aboutOne,
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			attrs := p.attrs(g)
			switch {
			case to == gobreaker.StateOpen && from == gobreaker.StateClosed:
				if failure := g.failure.Load(); failure != nil {
					attrs = append(attrs, slog.Any("err", *failure))
				}
				p.log.LogAttrs(context.Background(), slog.LevelWarn, "push: a provider fails; its notifications wait", attrs...)
			case to == gobreaker.StateClosed:
				p.log.LogAttrs(context.Background(), slog.LevelInfo, "push: a provider works again", attrs...)
			}
		},
	})
}

// attrs says in the log which provider, and which of the push services of Web Push.
func (p *provider) attrs(g *group) []slog.Attr {
	attrs := []slog.Attr{slog.String("provider", p.name)}
	if g.name != "" {
		attrs = append(attrs, slog.String("service", g.name))
	}
	return attrs
}

// aboutOne reports whether an answer is about one notification, which shows that the
// provider works.
func aboutOne(err error) bool {
	switch backends.Reason(err) {
	case "", "gone", "permanent", "too_large":
		return true
	}
	return false
}

// believes reports whether a target that was called dead is.
func (p *provider) believes(dead *notify.DeadError) bool {
	if !dead.Doubtful {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubts++
	return p.succeeded && p.doubts <= maxDoubts
}
