package devices

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
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
	name     string
	sender   notify.Sender
	perGroup int
	log      *slog.Logger

	mu      sync.Mutex
	running int
	groups  *simplelru.LRU[string, *group]
	// succeeded says that we are set up rightly; doubts counts doubtful deaths since.
	succeeded bool
	doubts    int
}

// group is one service of a provider: all of Apple's or Google's, one push service of
// Web Push.
type group struct {
	running int
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
}

func newProvider(app string, kind notify.Kind, s notify.Sender, log *slog.Logger) *provider {
	groups, _ := simplelru.NewLRU[string, *group](groupsKept, nil) // it fails for no size but one below 1
	p := &provider{name: app + "/" + string(kind), sender: s, perGroup: places, groups: groups, log: log}
	if kind == notify.WebPush {
		p.perGroup = placesPerOrigin
	}
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
func (p *provider) enter(t *notify.Target) (leave func(error), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := groupOf(t)
	g, ok := p.groups.Get(name)
	if !ok {
		g = &group{breaker: p.newBreaker()}
		p.groups.Add(name, g)
	}
	if p.running >= places || g.running >= p.perGroup {
		return nil, backends.Wait(time.Second, errBusy)
	}
	done, err := g.breaker.Allow()
	if err != nil {
		return nil, backends.Wait(restFor, errResting)
	}
	p.running++
	g.running++
	return func(err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running--
		g.running--
		done(err)
		if err == nil {
			p.succeeded, p.doubts = true, 0
		}
	}, nil
}

func (p *provider) newBreaker() *gobreaker.TwoStepCircuitBreaker[struct{}] {
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: p.name, MaxRequests: 1, Timeout: restFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripFailures },
		// What the provider says about one notification shows that it works.
		IsSuccessful: func(err error) bool {
			switch backends.Reason(err) {
			case "", "gone", "permanent", "too_large":
				return true
			}
			return false
		},
		IsExcluded: func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(name string, from, to gobreaker.State) {
			switch {
			case to == gobreaker.StateOpen && from == gobreaker.StateClosed:
				p.log.Warn("push: a provider fails; its notifications wait", "provider", name)
			case to == gobreaker.StateClosed:
				p.log.Info("push: a provider works again", "provider", name)
			}
		},
	})
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
