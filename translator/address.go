package translator

import (
	"slices"
	"strings"

	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// host is a local domain.
type host struct {
	// rooms marks a conference domain; nobody logs in there.
	rooms bool
	// statuses is the dialect that the last word of a session on the host came by that
	// is there, zero before the first. Ends can come by another.
	statuses trust.Feed
	// sources are those of the event-feed that have reported for the host, the last one at
	// the end.
	sources []uint16
	// snapshots says that the server sends the presence of all sessions by itself.
	snapshots bool
}

type hosts map[string]*host

func newHosts(served, rooms []string) hosts {
	h := make(hosts, len(served)+len(rooms))
	h.add(rooms, true)
	h.add(served, false)
	return h
}

// add enters domains, each in every form in which a server may write it.
func (h hosts) add(names []string, rooms bool) {
	added := make(map[jid.JID]*host)
	for form, name := range jid.NewDomains(names...).Forms() {
		if added[name] == nil {
			added[name] = &host{rooms: rooms}
		}
		h[string(form)] = added[name]
	}
}

// reported notes that a source of the event-feed has reported for the host.
func (h *host) reported(source uint16) {
	if n := len(h.sources); n > 0 && h.sources[n-1] == source {
		return
	}
	h.sources = slices.DeleteFunc(h.sources, func(s uint16) bool { return s == source })
	h.sources = append(h.sources, source)
}

// elsewhere reports whether what users of the host send is reported, but not by this
// source: another server serves them.
func (h *host) elsewhere(source uint16) bool {
	lesser := h.statuses == trust.ServiceLog || h.statuses == trust.Firewall // the others tell of no messages
	return (lesser || len(h.sources) > 0) && !slices.Contains(h.sources, source)
}

// address is a JID taken apart, with the local domain it is in.
type address struct {
	full, bare jid.JID
	domain     string
	// named says that it has a localpart, session that it has a resource.
	named, session bool
	// host is nil for an address elsewhere.
	host *host
}

func (h hosts) resolve(j jid.JID) address {
	a := address{full: j, bare: j.Bare()}
	a.session = len(j) > len(a.bare)+1
	a.domain = string(a.bare)
	if at := strings.IndexByte(a.domain, '@'); at >= 0 {
		a.named = at > 0
		a.domain = a.domain[at+1:]
	}
	a.host = h[a.domain]
	return a
}

// localUser reports whether it is, in MongooseIM's sense, a user of ours: a JID
// with a localpart on a served host.
func (a *address) localUser() bool { return a.named && a.host != nil && !a.host.rooms }
