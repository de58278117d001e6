package devices

import (
	"log/slog"
	"net/url"
	"sync"
	"time"

	"eventpusher/backends/push/internal/complain"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/route"
)

// maxDoubts is how many dead targets in a row are believed of a provider that would say
// the same if we were the ones who are set up wrongly.
const maxDoubts = 5

// provider is one application's way to one provider.
type provider struct {
	name       string
	app        string
	sender     notify.Sender
	complaints *complain.Log

	mu sync.Mutex
	// succeeded says that we are set up rightly; doubts counts doubtful deaths since.
	succeeded bool
	doubts    int
}

func newProvider(app string, kind notify.Kind, s notify.Sender, log *slog.Logger) *provider {
	return &provider{name: app + "/" + string(kind), app: app, sender: s, complaints: complain.New(log, time.Now)}
}

// route returns the destination that a target belongs to. Users choose the push services
// of Web Push.
func (p *provider) route(t *notify.Target) route.Key {
	if t.Kind != notify.WebPush {
		return route.Key{Kind: string(t.Kind), Name: p.app}
	}
	host := ""
	if u, err := url.Parse(t.Address.Reveal()); err == nil {
		host = u.Hostname()
	}
	return route.Key{Kind: string(t.Kind), Name: route.Domain(host), Chosen: true}
}

// succeeds notes that the provider has taken something.
func (p *provider) succeeds() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.succeeded, p.doubts = true, 0
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
