package trust

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"eventpusher/internal/jid"
)

// Nobody stands for a feed where none is to count.
const Nobody = Feed(numFeeds)

// Patience is how long a feed that counted may be silent, after the connection was set up
// or after it was asked whether it is there. Then another one that is heard takes its place.
const Patience = 20 * time.Second

// Choice says for each class which feed counts: one of them, Nobody, or 0 for the best
// that is heard.
type Choice [numClasses]Feed

// Chosen returns the entry of a Choice for what config.Component.Authority says.
func Chosen(name string) Feed {
	if name == "" {
		return 0
	}
	if f, ok := ParseFeed(name); ok {
		return f
	}
	return Nobody
}

// authorities knows the authority of each host and class: the configured feed, or the
// best one heard. It goes on to count on the next connection, unless it is not heard there.
//
// One goroutine asks; any may take a snapshot.
type authorities struct {
	configured Choice
	silent     func(host jid.JID, now time.Time) bool // nil: the event-feed never falls silent
	metrics    *Metrics
	log        *slog.Logger

	mu    sync.Mutex // held by the asking goroutine only where it writes
	since time.Time  // when the connection was set up
	hosts map[jid.JID]*hostFeeds
}

type hostFeeds struct {
	name      jid.JID // as configured; heard as it is written there, or in its other form
	authority [numClasses]Feed
	// heard says which feeds reported anything, now which of them on this connection.
	heard, now [numFeeds]bool
}

func newAuthorities(o *Options) *authorities {
	a := &authorities{configured: o.Feeds, metrics: o.Metrics, log: o.Log, hosts: make(map[jid.JID]*hostFeeds)}
	served := make(map[jid.JID]*hostFeeds)
	for form, name := range jid.NewDomains(o.Hosts...).Forms() {
		if served[name] == nil {
			served[name] = &hostFeeds{name: name}
		}
		a.hosts[form] = served[name]
	}
	return a
}

// connected begins a connection, on which nothing was heard yet.
func (a *authorities) connected(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.since = now
	for _, h := range a.hosts {
		h.now = [numFeeds]bool{}
	}
}

// hear takes note that a feed was heard on a host.
func (a *authorities) hear(host jid.JID, f Feed) *hostFeeds {
	h := a.hosts[host]
	if h != nil && h.now[f] {
		return h
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if h == nil { // an operator's forwarder that is not a served host
		h = &hostFeeds{name: jid.JID(strings.Clone(string(host)))}
		a.hosts[h.name] = h
	}
	h.heard[f], h.now[f] = true, true
	for c := range numClasses {
		if h.authority[c] == f {
			a.metrics.authority.WithLabelValues(string(h.name), c.String(), f.String()).Set(1)
		}
	}
	return h
}

// admit reports whether feed f is the authority for this class of facts of
// host, after taking note that it was heard.
func (a *authorities) admit(host jid.JID, c Class, f Feed, now time.Time) bool {
	h := a.hear(host, f)
	if h.authority[c] == f {
		return true
	}
	// A feed that reports that sessions come also reports those that say goodbye: were
	// the two heard apart, a presence directed at us could be the first unavailable
	// heard and pass for a fact.
	if c != Messages {
		a.prefer(h, Presence, f, now)
		a.prefer(h, Offline, f, now)
	} else {
		a.prefer(h, Messages, f, now)
	}
	return h.authority[c] == f
}

// prefer makes f the authority for class c if it is configured, or better than the
// present one, or if that one is not there any more.
func (a *authorities) prefer(h *hostFeeds, c Class, f Feed, now time.Time) {
	before := h.authority[c]
	if f == before || !f.reports(c) {
		return
	}
	better := before == 0 || f < before || a.gone(h, before, now)
	if configured := a.configured[c]; configured != 0 {
		better = configured == f
	}
	if !better {
		return
	}
	a.mu.Lock()
	h.authority[c] = f
	a.mu.Unlock()
	a.metrics.authority.DeletePartialMatch(map[string]string{"host": string(h.name), "class": c.String()})
	a.metrics.authority.WithLabelValues(string(h.name), c.String(), f.String()).Set(1)
	attrs := []any{"host", string(h.name), "class", c.String(), "feed", f.String()}
	switch {
	case before == 0:
		a.log.Info("component: feed established", attrs...)
	case f < before:
		a.log.Info("component: better feed heard, it replaces the other", append(attrs, "before", before.String())...)
	default:
		a.log.Warn("component: the feed that counted is not heard any more, another one counts instead", append(attrs, "before", before.String(),
			"remedy", "set the server's "+before.String()+" feed up again, as docs/servers says, if it is to count")...)
	}
}

// gone reports whether a feed that counted is not there any more: it was not heard on a
// connection that has lasted for Patience, or the event-feed has fallen silent.
func (a *authorities) gone(h *hostFeeds, f Feed, now time.Time) bool {
	if a.since.IsZero() || now.Sub(a.since) < Patience {
		return false
	}
	if f == EventFeed && h.now[f] && a.silent != nil && a.silent(h.name, now) {
		a.mu.Lock()
		h.now[f] = false
		a.mu.Unlock()
	}
	return !h.now[f]
}

// of returns the authority of a host for a class, 0 if there is none. It belongs to
// the goroutine that asks.
func (a *authorities) of(host jid.JID, c Class) Feed {
	if h := a.hosts[host]; h != nil {
		return h.authority[c]
	}
	return 0
}

// deaf reports whether no served host was ever heard. It belongs to the goroutine that asks.
func (a *authorities) deaf() bool {
	for _, h := range a.hosts {
		if h.heard != [numFeeds]bool{} {
			return false
		}
	}
	return true
}

// unheard lists the hosts, in order of their names, on which the event-feed counts, by
// configuration or because it was heard before, and is gone. The metric of the authority
// is 0 for them.
func (a *authorities) unheard(now time.Time) (hosts []jid.JID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since.IsZero() || now.Sub(a.since) < Patience {
		return nil
	}
	for host, h := range a.hosts {
		if h.now[EventFeed] || h.name != host {
			continue
		}
		missing := false
		for c := range numClasses {
			if h.authority[c] == EventFeed {
				missing = true
				a.metrics.authority.WithLabelValues(string(host), c.String(), EventFeed.String()).Set(0)
			}
			missing = missing || a.configured[c] == EventFeed && h.authority[c] == 0
		}
		if missing {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// HostStatus says how one host is heard.
type HostStatus struct {
	Host string `json:"host"`
	// Authority names the feed that counts for each class of fact; classes of
	// which nothing was heard yet are missing.
	Authority map[Class]string `json:"authority"`
	// Heard lists the feeds that reported anything, best first.
	Heard []string `json:"heard"`
	// Privileges are what the host lets the component do on this connection (XEP-0356),
	// such as "presence managed_entity"; Delegated the namespaces that it has left to
	// the component (XEP-0355).
	Privileges []string `json:"privileges,omitempty"`
	Delegated  []string `json:"delegated,omitempty"`
}

// snapshot lists the hosts in order of their names.
func (a *authorities) snapshot() []HostStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]HostStatus, 0, len(a.hosts))
	for host, h := range a.hosts {
		if h.name != host {
			continue // the other form of one that is listed
		}
		out := HostStatus{Host: string(host), Authority: make(map[Class]string), Heard: []string{}}
		for c := range numClasses {
			if d := h.authority[c]; d != 0 {
				out.Authority[c] = d.String()
			}
		}
		for f := EventFeed; f <= Direct; f++ {
			if h.heard[f] {
				out.Heard = append(out.Heard, f.String())
			}
		}
		list = append(list, out)
	}
	slices.SortFunc(list, func(x, y HostStatus) int { return strings.Compare(x.Host, y.Host) })
	return list
}
