package trust

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"eventpusher/internal/jid"
)

// Patience is how long a feed that counted may be silent, after the connection was set up
// or after it was asked whether it is there. Then another one that is heard takes its place.
const Patience = 20 * time.Second

// authorities knows the authority of each host and class: the configured feed, or the
// best one heard. It goes on to count on the next connection, unless it is not heard there.
//
// One goroutine asks; any may take a snapshot.
type authorities struct {
	configured [numClasses]Feed                       // numFeeds: none is to count; 0: the best that is heard
	silent     func(host jid.JID, now time.Time) bool // nil: the event-feed never falls silent
	metrics    *Metrics
	log        *slog.Logger

	mu     sync.Mutex             // held by the asking goroutine only where it writes
	since  time.Time              // when the connection was set up
	byHost map[jid.JID]*hostFeeds // in each form of its name
}

type hostFeeds struct {
	name      jid.JID // as configured; heard as it is written there, or in its other form
	authority [numClasses]Feed
	counts    [numClasses]time.Time // since when the authority is that
	passing   bool                  // not remembered, logged or counted: there are too many
	// heard says which feeds reported anything, now which of them on this connection.
	heard, now [numFeeds]bool
	// What the host lets the component do on this connection: presence is that of all its
	// sessions (XEP-0356), the rest is for the status.
	presence              bool
	privileges, delegated []string
}

func newAuthorities(o *Options) *authorities {
	a := &authorities{metrics: o.Metrics, log: o.Log, byHost: make(map[jid.JID]*hostFeeds)}
	for c := range numClasses {
		if o.Feeds == nil || o.Feeds(c.String()) == "" {
			continue
		}
		a.configured[c] = Feed(numFeeds)
		if i := slices.Index(feedNames[EventFeed:], o.Feeds(c.String())); i >= 0 {
			a.configured[c] = EventFeed + Feed(i)
		}
	}
	return a
}

// serve makes these the served hosts.
func (a *authorities) serve(hosts jid.Domains) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.byHost
	a.byHost = make(map[jid.JID]*hostFeeds)
	served := make(map[jid.JID]*hostFeeds)
	for form, name := range hosts.Forms() {
		if h := before[form]; h != nil && served[name] == nil {
			served[name] = h
		} else if served[name] == nil {
			served[name] = &hostFeeds{name: name}
		}
		a.byHost[form] = served[name]
	}
	for _, h := range before {
		if served[h.name] == h {
			continue
		}
		for c, f := range h.authority {
			a.metrics.authority.DeleteLabelValues(string(h.name), Class(c).String(), f.String())
		}
	}
}

// maxHeard bounds the hosts that are remembered, since anybody can make up names that a wildcard stands
// for. On further ones the best feed counts that is heard at the moment.
const maxHeard = 10_000

// connected begins a connection, on which nothing was heard yet. Privileges are forgotten,
// since servers grant them again.
func (a *authorities) connected(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.since = now
	for _, h := range a.byHost {
		h.now, h.presence, h.privileges, h.delegated = [numFeeds]bool{}, false, nil, nil
	}
}

// hear takes note that a feed was heard on a host.
func (a *authorities) hear(host jid.JID, f Feed) *hostFeeds {
	h := a.byHost[host]
	if h != nil && h.now[f] {
		return h
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if h == nil { // an operator's forwarder that is not a served host, or a host that a wildcard stands for
		h = &hostFeeds{name: jid.JID(strings.Clone(string(host)))}
		if h.passing = len(a.byHost) >= maxHeard; !h.passing {
			a.byHost[h.name] = h
		}
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
	h.authority[c], h.counts[c] = f, now
	a.mu.Unlock()
	if h.passing {
		return
	}
	a.metrics.authority.DeleteLabelValues(string(h.name), c.String(), before.String())
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

// Silent sets how the judge learns that the event-feed has fallen silent on a host on which
// it counts. silent is asked whenever another feed is refused there, and must not block.
func (a *authorities) Silent(silent func(host jid.JID, now time.Time) bool) { a.silent = silent }

// TellsMessages reports whether a feed that tells of all messages of a host's users counts
// for it. It belongs to the goroutine that judges.
func (a *authorities) TellsMessages(host jid.JID) bool {
	f := a.Authority(host, Messages)
	return f != 0 && f.reports(Messages) && f != Direct
}

// Authority returns the feed that counts for a class of facts of a host, 0 if there is
// none. It belongs to the goroutine that judges.
func (a *authorities) Authority(host jid.JID, c Class) Feed {
	if h := a.byHost[host]; h != nil {
		return h.authority[c]
	}
	return 0
}

// deaf reports whether no served host was ever heard. It belongs to the goroutine that asks.
func (a *authorities) deaf() bool {
	for _, h := range a.byHost {
		if h.heard != [numFeeds]bool{} {
			return false
		}
	}
	return true
}

// Unheard lists the hosts, in order of their names, on which the event-feed counts, by
// configuration or because it was heard before, and is not heard: not on a connection that
// has lasted for Patience, or not any more. The metric of the authority is 0 for them. Any
// goroutine may call it.
func (a *authorities) Unheard(now time.Time) (hosts []jid.JID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since.IsZero() || now.Sub(a.since) < Patience {
		return nil
	}
	for host, h := range a.byHost {
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
