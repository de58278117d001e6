package doctor

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"mellium.im/xmpp/disco"

	"eventpusher/backends"
	"eventpusher/backends/push"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/store"
	"eventpusher/backends/push/xmppside"
	"eventpusher/component"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/finding"
	"eventpusher/internal/jid"
)

// Push examines for each host whether its users can register for push there, and
// whether its feeds tell who is offline. offered, which may be nil, reports what was
// heard of a host beside its delegations in force.
func Push(ctx context.Context, link *component.Link, cfg *config.Config, offered func(host jid.JID) bool) []finding.Finding {
	s := link.Status()
	if s.State != component.Connected {
		return nil // Server has said so
	}
	name, taken := cfg.Component.Name, jid.NewDomains(xmppside.Delegators(cfg.Served(), cfg.Component.Forwarders)...)
	var list []finding.Finding
	for _, host := range known(cfg, s.Hosts) {
		of := string(jid.Prepare(host))
		for _, h := range s.Hosts {
			if h.Host != of {
				continue
			}
			inForce := slices.Contains(h.Delegated, notify.NS)
			isOffered := inForce || offered != nil && offered(jid.JID(of))
			switch {
			case isOffered && !taken.Has(jid.JID(of)):
				list = append(list, finding.Warnf(of, "add it to [component] forwarders", "the server delegates %s to us, but [component] forwarders lacks this host, so its users are refused", notify.NS))
			case inForce && hidden(ctx, link, of):
				list = append(list, finding.Warnf(of, "restart the server: Prosody asks what we do at our first connection after its start, and never again",
					"the server delegates %s to us, but clients do not see push at %s", notify.NS, of))
			case inForce:
				list = append(list, finding.Okf(of, "users register for push at their server, which delegates %s to us", notify.NS))
			case isOffered:
				list = append(list, finding.Okf(of, "users register for push at their server, which delegates %s as soon as an instance answers it", notify.NS))
			default:
				list = append(list, notDelegated(of, name, len(cfg.AppServer.Apps) > 0))
			}
			list = append(list, offline(h, name))
		}
	}
	return list
}

// notDelegated says how to let the host delegate users' requests (XEP-0355). For an app
// server, whom servers publish to, nothing need be wrong.
func notDelegated(host, name string, appServer bool) finding.Finding {
	remedy := fmt.Sprintf("let it do so: Prosody by delegations = { [%q] = { jid = %q } } and the module delegation, ejabberd by mod_delegation; docs/push.md has both", notify.NS, name)
	if appServer {
		remedy = "right if the server's own push module (Prosody mod_cloud_notify, ejabberd mod_push) publishes here; else " + remedy
	}
	return finding.Warnf(host, remedy,
		"the server does not delegate %s, so that only clients which ask %s itself can register for push", notify.NS, name)
}

// hidden reports whether the host tells what it does (XEP-0030), and push is not among
// it. It stands for its accounts, which a component may not ask: servers ask us for both
// at the same time.
func hidden(ctx context.Context, link *component.Link, host string) bool {
	reply, err := link.Request(ctx, component.Request{
		To: host, Type: component.Get, Payload: []byte("<query xmlns='" + disco.NSInfo + "'/>"), Timeout: askTimeout,
	})
	if err != nil {
		return false
	}
	var iq struct {
		Query *struct {
			Features []struct {
				Var string `xml:"var,attr"`
			} `xml:"feature"`
		} `xml:"http://jabber.org/protocol/disco#info query"`
	}
	if xml.Unmarshal(reply.Raw, &iq) != nil || iq.Query == nil {
		return false
	}
	for _, f := range iq.Query.Features {
		if f.Var == notify.NS {
			return false
		}
	}
	return true
}

// offers notes which hosts ask what we would do for push. They are told what an instance
// would tell them: ejabberd asks before it delegates anything, but Prosody asks only once
// after its start, and would hide push from clients until the next.
type offers struct {
	mu    sync.Mutex
	hosts map[jid.JID]bool
}

func (o *offers) note(host jid.JID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hosts[host] = true
}

func (o *offers) from(host jid.JID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.hosts[host]
}

// offline says whether a feed knows who is offline, without which there is nobody to
// notify.
func offline(h trust.HostStatus, name string) finding.Finding {
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
type Registrations func() (store.Registrations, error)

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
		b.Attach(store, nil, nil)
		return func() { _ = store.Close() }, nil // it was only read
	}
	return func() {}, nil
}
