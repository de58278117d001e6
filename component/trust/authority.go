package trust

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	"eventpusher/internal/jid"
)

// nobody stands for a dialect where none is to be the authority.
const nobody = Feed(numFeeds)

// authorities knows the authority of each host and class.
// One goroutine asks; any may take a snapshot.
type authorities struct {
	configured [numClasses]Feed // 0: the best one heard
	log        *slog.Logger

	mu    sync.Mutex // held by the asking goroutine only where it writes
	hosts map[jid.JID]*hostFeeds
}

type hostFeeds struct {
	name      jid.JID // as configured; heard as it is written there, or in its other form
	authority [numClasses]Feed
	heard     [numFeeds]bool
}

// newAuthorities takes the entries of [component] feeds; an empty list leaves the
// choice to what is heard.
func newAuthorities(hosts, feeds []string, log *slog.Logger) *authorities {
	a := &authorities{hosts: make(map[jid.JID]*hostFeeds), log: log}
	a.configure(feeds)
	served := make(map[jid.JID]*hostFeeds)
	for form, name := range jid.NewDomains(hosts...).Forms() {
		if served[name] == nil {
			served[name] = &hostFeeds{name: name}
		}
		a.hosts[form] = served[name]
	}
	return a
}

// configure reads the entries. "direct" stands for all classes that no entry with a
// class names, "direct:offline" for that one. Of several the best counts. Classes that
// nothing stands for are left to what is heard.
func (a *authorities) configure(feeds []string) {
	var listed [numClasses][]Feed
	var general []Feed
	forAll := false
	for _, entry := range feeds {
		name, class, named := strings.Cut(strings.ToLower(strings.TrimSpace(entry)), ":")
		d, ok := ParseFeed(name)
		c := slices.Index(classNames[:], class)
		switch {
		case !ok, named && c < 0:
			a.log.Warn("component: this feed cannot be read and is left out", "feed", entry)
			forAll = true // asked for something, not for whatever is heard
		case named:
			listed[c] = append(listed[c], d)
		default:
			general, forAll = append(general, d), true
		}
	}
	for c := range numClasses {
		candidates := listed[c]
		if len(candidates) == 0 {
			candidates = general
		}
		slices.Sort(candidates) // the order of Dialect: best first
		for _, d := range candidates {
			if d.reports(c) {
				a.configured[c] = d
				break
			}
		}
		if a.configured[c] == 0 && (forAll || len(listed[c]) > 0) {
			a.configured[c] = nobody
			a.log.Warn("component: none of the listed feeds reports this class of fact", "class", c.String())
		}
	}
}

// establish takes note that d is heard on host and can report all that it gives, before
// it has.
func (a *authorities) establish(host jid.JID, d Feed) {
	for c := range numClasses {
		a.admit(host, c, d)
	}
}

// admit reports whether dialect d is the authority for this class of facts of
// host, after taking note that it was heard.
func (a *authorities) admit(host jid.JID, c Class, d Feed) bool {
	h := a.hosts[host]
	if h == nil { // an operator's forwarder that is no served host
		h = &hostFeeds{name: host}
		a.mu.Lock()
		a.hosts[host] = h
		a.mu.Unlock()
	}
	if !h.heard[d] {
		a.mu.Lock()
		h.heard[d] = true
		a.mu.Unlock()
	}
	if h.authority[c] == d {
		return true
	}
	// Whoever reports that sessions come also reports those that say goodbye: were
	// the two heard apart, a presence directed at us could be the first unavailable
	// heard and pass for a fact.
	if c != Messages {
		a.prefer(host, h, Presence, d)
		a.prefer(host, h, Offline, d)
	} else {
		a.prefer(host, h, Messages, d)
	}
	return h.authority[c] == d
}

// prefer makes d the authority for class c if it is configured or better than the
// present one.
func (a *authorities) prefer(host jid.JID, h *hostFeeds, c Class, d Feed) {
	now := h.authority[c]
	better := d.reports(c) && (now == 0 || d < now)
	if configured := a.configured[c]; configured != 0 {
		better = configured == d && now != d
	}
	if !better {
		return
	}
	a.mu.Lock()
	h.authority[c] = d
	a.mu.Unlock()
	if now == 0 {
		a.log.Info("component: feed established", "host", string(host), "class", c.String(), "feed", d.String())
	} else {
		a.log.Info("component: better feed heard, it replaces the other", "host", string(host), "class", c.String(), "feed", d.String(), "before", now.String())
	}
}

// of returns the authority of a host for a class, 0 if there is none. It belongs to
// the goroutine that asks.
func (a *authorities) of(host jid.JID, c Class) Feed {
	if h := a.hosts[host]; h != nil {
		return h.authority[c]
	}
	return 0
}

// HostStatus says how one host is heard.
type HostStatus struct {
	Host string `json:"host"`
	// Authority names the dialect that counts for each class of fact; classes of
	// which nothing was heard yet are missing.
	Authority map[Class]string `json:"authority"`
	// Heard lists the dialects that reported anything, best first.
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
		for d := EventFeed; d <= Direct; d++ {
			if h.heard[d] {
				out.Heard = append(out.Heard, d.String())
			}
		}
		list = append(list, out)
	}
	slices.SortFunc(list, func(x, y HostStatus) int { return strings.Compare(x.Host, y.Host) })
	return list
}
