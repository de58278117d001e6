package push

import (
	"context"
	"slices"
	"time"

	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// Explanation says what a user has registered, and what was decided about the
// latest messages to him. It holds no secret and nothing of messages.
type Explanation struct {
	User          jid.JID      `json:"user"` // a bare JID
	Registrations []Registered `json:"registrations"`
	// Devices are those that the user has registered at eventpusher itself, in the order
	// of their nodes.
	Devices []OwnDevice `json:"devices,omitempty"`
	// Decisions are the latest that the running instance remembers, oldest first;
	// nil where none was asked.
	Decisions []journal.Decision `json:"decisions"`
	// Feeds names the feed that reports each class of facts, such as message, of
	// the user's host; nil where no instance was asked, empty if none was heard.
	Feeds map[string]string `json:"feeds,omitempty"`
	// Silent is how many of the instances that share the events were asked and have not
	// said what they have decided.
	Silent int `json:"silent_instances,omitempty"`
}

// Merge adds what another instance knows of the same user.
func (e *Explanation) Merge(other *Explanation) {
	e.Decisions = append(e.Decisions, other.Decisions...)
	slices.SortStableFunc(e.Decisions, func(a, b journal.Decision) int { return a.Time.Compare(b.Time) })
	if len(e.Feeds) == 0 { // who has not got the link hears none
		e.Feeds = other.Feeds
	}
}

// Registered is one registration, without the values of its options: those are
// between the client and its service, and often secrets.
type Registered struct {
	Service jid.JID  `json:"service"`
	Node    string   `json:"node"`
	Options []string `json:"options,omitempty"` // names
	// Rules say in a few words what the user does not want to be told.
	Rules []string `json:"rules,omitempty"`
	// Lacks names the options without which nothing is pushed for the registration.
	Lacks []string `json:"lacks,omitempty"`
	By    Way      `json:"by"`
}

// OwnDevice is a device that is registered at eventpusher, without the token or endpoint by
// which its provider knows it.
type OwnDevice struct {
	Node string `json:"node"`
	App  string `json:"app"`
	Kind string `json:"kind"`
	// Created is when it was first registered, Registered when last, Used when it was last
	// told something, to the day; zero if never.
	Created    time.Time `json:"created"`
	Registered time.Time `json:"registered"`
	Used       time.Time `json:"used,omitzero"`
}

// Way is how notifications go to a service.
type Way string

// The ways.
const (
	ByIQ      Way = "iq"      // published by an IQ at a service of the network
	ByGateway Way = "gateway" // handed to MongoosePush, in the name of a virtual service
	ByDevices Way = "devices" // delivered by us, to a device that is registered here
)

// way returns how notifications for a recipient on that host go to a service.
func (b *Backend) way(pubsub jid.JID, host string) Way {
	switch {
	case b.virtual(jid.JID(pubsub.Domain()), host):
		return ByGateway
	case b.o.Devices != nil && b.own.Has(pubsub.Bare()):
		return ByDevices
	}
	return ByIQ
}

// Explain says what is known about push for a user, given by his bare JID. The
// error is the store's.
func (b *Backend) Explain(ctx context.Context, user jid.JID) (Explanation, error) {
	services, err := b.store.Services(ctx, user)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{User: user, Registrations: make([]Registered, len(services)), Decisions: b.Decisions(user)}
	if e.Decisions == nil {
		e.Decisions = []journal.Decision{}
	}
	for i := range services {
		s := &services[i]
		r := Registered{Service: s.PubSub, Node: s.Node, Rules: s.Rules.Summary(), By: b.way(s.PubSub, user.Domain())}
		if r.By == ByGateway && b.o.Gateway != nil {
			r.Lacks = b.o.Lacks(s.Options)
		}
		for _, o := range s.Options {
			r.Options = append(r.Options, o.Name)
		}
		e.Registrations[i] = r
	}
	if b.o.Devices != nil {
		e.Devices, err = b.ownDevices(ctx, user)
	}
	return e, err
}

func (b *Backend) ownDevices(ctx context.Context, user jid.JID) ([]OwnDevice, error) {
	store := b.o.Devices.Store()
	if store == nil {
		return nil, nil
	}
	all, err := store.List(ctx, user)
	if err != nil {
		return nil, err
	}
	return OwnDevices(all), nil
}

// OwnDevices returns the devices without what their providers know them by.
func OwnDevices(all []store.Device) []OwnDevice {
	list := make([]OwnDevice, len(all))
	for i := range all {
		d := &all[i]
		list[i] = OwnDevice{d.Node, d.App, string(d.Target.Kind), d.Created, d.Registered, d.Used}
	}
	return list
}

// Remove removes registrations of a user in an operator's name: that of a node,
// with an empty node those of a push service, with an empty service all. It says
// how many there were.
func (b *Backend) Remove(ctx context.Context, user, service jid.JID, node string) (n int, err error) {
	switch {
	case service == "":
		n, err = b.store.Forget(ctx, user, time.Time{})
	case node == "":
		n, err = b.store.DisableAll(ctx, user, service)
	default:
		var there bool
		if there, err = b.store.Disable(ctx, user, service, node); there {
			n = 1
		}
	}
	if err != nil {
		return 0, err
	}
	if n > 0 {
		b.journal.Count(journal.ByOperator)
	}
	return n, nil
}
