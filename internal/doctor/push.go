package doctor

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"mellium.im/xmpp/disco"

	"eventpusher/backends"
	"eventpusher/backends/push"
	"eventpusher/backends/push/registration"
	"eventpusher/component"
	"eventpusher/internal/finding"
	"eventpusher/internal/jid"
)

// Push examines for each host whether its users can register for push there, and
// whether its feeds tell who is offline. offered, which may be nil, reports what was
// heard of a host beside its delegations in force.
func Push(link *component.Link, name string, hosts []string, offered func(host jid.JID) bool) []finding.Finding {
	s := link.Status()
	if s.State != component.Connected {
		return nil // Server has said so
	}
	var list []finding.Finding
	for _, host := range hosts {
		of := string(jid.Prepare(host))
		for _, h := range s.Hosts {
			if h.Host == of {
				delegates := slices.Contains(h.Delegated, registration.NS) || offered != nil && offered(jid.JID(of))
				list = append(list, registering(h.Host, name, delegates), offline(h, name))
			}
		}
	}
	return list
}

// registering says whether the host delegates users' requests (XEP-0355).
func registering(host, name string, delegates bool) finding.Finding {
	if delegates {
		return finding.Okf(host, "users register for push at their server, which delegates %s to us", registration.NS)
	}
	return finding.Warnf(host, fmt.Sprintf("let it do so: Prosody by delegations = { [%q] = { jid = %q } } and the module delegation, ejabberd by mod_delegation; docs/push.md has both", registration.NS, name),
		"the server does not delegate %s, so that only clients which ask %s itself can register for push", registration.NS, name)
}

// offers notes which hosts ask what we would do for push, which ejabberd does before it
// delegates anything. It is answered that we would do nothing: for the moments of an
// examination no user's request is to come here.
type offers struct {
	mu    sync.Mutex
	hosts map[jid.JID]bool
}

func (o *offers) handlers() (list []component.IQHandler) {
	for _, node := range push.DelegationNodes() {
		list = append(list, component.IQHandler{
			Name: "delegation_disco", Element: xml.Name{Space: disco.NSInfo, Local: "query"}, Type: component.Get, Node: node,
			Handle: func(q *component.IQ) {
				o.mu.Lock()
				o.hosts[q.From] = true
				o.mu.Unlock()
				_ = q.Fail(component.StanzaError{Type: "cancel", Condition: "item-not-found"}) // it may have gone
			},
		})
	}
	return list
}

func (o *offers) from(host jid.JID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.hosts[host]
}

// offline says whether a feed knows who is offline, without which there is nobody to
// notify.
func offline(h component.HostFeeds, name string) finding.Finding {
	best := ""
	if len(h.Heard) > 0 {
		best = h.Heard[0]
	}
	if best == "event-feed" {
		return finding.Okf(h.Host, "event-feed tells exactly who is offline, so messages to them are pushed")
	}
	heard := "no feed was heard that could tell"
	if best != "" {
		heard = "the feed " + best + " does not tell"
	}
	return finding.Warnf(h.Host, fmt.Sprintf("load mod_event_feed; or let the server's own push module (Prosody mod_cloud_notify, ejabberd mod_push) notify %s", name),
		"push needs to know who is offline, and %s; such messages are not pushed", heard)
}

// Registrations opens the store of push registrations for reading; the error of one
// that is still to be made is fs.ErrNotExist.
type Registrations func() (registration.Store, error)

// attachStore lets the push backend among these, if there is one, look into its
// registrations. The returned function closes them.
func attachStore(list []backends.Backend, open Registrations) (closeStore func(), found []finding.Finding) {
	for _, one := range list {
		b, ok := one.(*push.Backend)
		if !ok {
			continue
		}
		store, err := open()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return func() {}, []finding.Finding{finding.Okf(b.Name(), "no registrations; the first start makes the place for them")}
		case err != nil:
			return func() {}, []finding.Finding{finding.Failf(b.Name(), "", "%v", err)}
		}
		b.Attach(store, nil)
		return func() { _ = store.Close() }, nil // it was only read
	}
	return func() {}, nil
}
