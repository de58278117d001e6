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

// hosts are the local domains.
type hosts struct {
	known map[string]*host // those with a name, and those that a wildcard stands for and that were heard of
	// What wildcards stand for.
	served, rooms jid.Domains
	wild          bool // there are wildcards
}

// maxWild bounds the hosts that wildcards stand for and of which something is remembered: anybody can
// make up names. Of further ones nothing is.
const maxWild = 10_000

func newHosts(served, rooms []string, component string) *hosts {
	h := &hosts{
		known:  make(map[string]*host, len(served)+len(rooms)),
		served: jid.NewDomains(jid.Except(served, append(slices.Clone(rooms), component)...)...), rooms: jid.NewDomains(jid.Except(rooms, component)...),
		wild: slices.ContainsFunc(served, jid.Wild) || slices.ContainsFunc(rooms, jid.Wild),
	}
	h.add(h.rooms, true)
	h.add(h.served, false)
	return h
}

// add enters domains that have a name, each in every form in which a server may write it.
func (h *hosts) add(names jid.Domains, rooms bool) {
	added := make(map[jid.JID]*host)
	for form, name := range names.Forms() {
		if added[name] == nil {
			added[name] = &host{rooms: rooms}
		}
		h.known[string(form)] = added[name]
	}
}

// find returns a local domain, nil if it is none.
func (h *hosts) find(domain string) *host {
	known := h.known[domain]
	if known != nil || !h.wild {
		return known
	}
	rooms := h.rooms.Has(jid.JID(domain))
	if !rooms && !h.served.Has(jid.JID(domain)) {
		return nil
	}
	heard := &host{rooms: rooms}
	if len(h.known) < maxWild {
		h.known[strings.Clone(domain)] = heard
	}
	return heard
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

func (h *hosts) resolve(j jid.JID) address {
	a := address{full: j, bare: j.Bare()}
	a.session = len(j) > len(a.bare)+1
	a.domain = string(a.bare)
	if at := strings.IndexByte(a.domain, '@'); at >= 0 {
		a.named = at > 0
		a.domain = a.domain[at+1:]
	}
	a.host = h.find(a.domain)
	return a
}

// localUser reports whether it is, in MongooseIM's sense, a user of ours: a JID
// with a localpart on a served host.
func (a *address) localUser() bool { return a.named && a.host != nil && !a.host.rooms }
