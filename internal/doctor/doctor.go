// Package doctor examines an instance and its surroundings: the outbox, the link to the
// XMPP server with its feeds, and the services that events go to. It publishes
// nothing, and it is safe beside a running instance.
package doctor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/catalog"
	"eventpusher/backends/push/xmppside"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/internal/finding"
	"eventpusher/internal/jid"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
)

const (
	// Limit is how long a whole examination takes at most, about.
	Limit = 15 * time.Second
	// attachLimit is how long to wait for the link, listenFor how long to listen to the
	// feeds then, sinkLimit how long each service has to answer.
	attachLimit = 6 * time.Second
	listenFor   = 2 * time.Second
	sinkLimit   = 10 * time.Second
	// lockLimit is how long to wait for an instance that is just ending.
	lockLimit = 2 * time.Second
)

// Sinks probes each backend that can be probed, all at once; the findings are in the
// order of the list.
func Sinks(ctx context.Context, list []backends.Backend) []finding.Finding {
	ctx, cancel := context.WithTimeout(ctx, sinkLimit)
	defer cancel()
	found := make([][]finding.Finding, len(list))
	var probing sync.WaitGroup
	for i, b := range list {
		probing.Go(func() { found[i] = backends.Probe(ctx, b) })
	}
	probing.Wait()
	var all []finding.Finding
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// Alone examines what an instance of this configuration would meet, while none runs.
// It holds the outbox's lock meanwhile and attaches to the server itself, so that
// there is never a second connection: ejabberd would share the stanzas out between
// the two. If another process has the lock, nothing is attached. What the server sends
// in these seconds is not taken: a feed that acknowledges keeps it, others lose it, as
// they lose all while no instance runs.
//
// Of an outbox that several instances share, nobody here can tell whether one of
// them is attached, so nothing is; letters opens what it keeps.
//
// registrations opens the store of push registrations for reading.
func Alone(ctx context.Context, cfg *config.Config, version string, letters Letters, registrations Registrations) []finding.Finding {
	silent := slog.New(slog.DiscardHandler)
	built, err := catalog.Build(cfg, silent, filter.CompileValue)
	if err != nil {
		return []finding.Finding{finding.Failf("backends", "", "%v", err)}
	}
	configured := make(map[string]bool)
	for _, b := range built {
		configured[b.Name()] = true
		defer b.Close()
	}
	closeStore, stored := attachStore(built, registrations)
	defer closeStore()
	if cfg.Outbox.Engine == "nats" {
		return append(shared(ctx, cfg, letters), append(stored, Sinks(ctx, built)...)...)
	}
	list := []finding.Finding{finding.Okf("instance", "none runs on %s, so this is what one would find", cfg.Outbox.Path), Disk(cfg.Outbox)}
	box, err := outbox.Inspect(cfg.Outbox.Path, lockLimit)
	if err != nil {
		list = append(list, cannotOpen(cfg.Outbox.Path, err))
	} else {
		defer box.Close()
		list = append(list, kept(box, configured)...)
	}

	var server, sinks []finding.Finding
	var both sync.WaitGroup
	both.Go(func() { sinks = Sinks(ctx, built) })
	var taken *outbox.LockedError
	switch {
	case Answers(ctx, cfg.Admin.Listen):
		server = []finding.Finding{finding.Warnf(subjectServer, "call doctor in the directory where the instance runs: [outbox] path is relative to it",
			"not attached: something listens at [admin] listen = %q, probably an instance with another outbox", cfg.Admin.Listen)}
	case errors.As(err, &taken):
		server = []finding.Finding{finding.Warnf(subjectServer, "", "not attached: the process that has the outbox may be")}
	default:
		server = attach(ctx, cfg, version)
	}
	both.Wait()
	return slices.Concat(list, server, stored, sinks)
}

// Answers reports whether something listens at the address of the admin listener, which
// may be empty: an instance whose outbox is not the one here is still one, and a second
// connection would take stanzas and grants from it.
func Answers(ctx context.Context, listen string) bool {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" {
		return false
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was written
	return true
}

// attach connects to the server for a moment.
func attach(ctx context.Context, cfg *config.Config, version string) []finding.Finding {
	c := cfg.Component
	c.HandshakeTimeout = min(c.HandshakeTimeout, attachLimit-time.Second)
	offers := &offers{hosts: make(map[jid.JID]bool)}
	delegation := &xmppside.Delegation{Asked: offers.note}
	if cfg.Pusher.Push != nil {
		delegation.Hosts = jid.NewDomains(xmppside.Delegators(cfg.Served(), c.Forwarders)...)
	}
	link, err := component.New(c, cfg.General.Hosts, component.Options{
		Version: version,
		IQ:      delegation.Handlers(), // a request of a user is not carried out
		// Nothing is kept here; an event-feed keeps what it has for the instance.
		Silent: true,
	})
	if err != nil {
		return []finding.Finding{finding.Failf(subjectServer, "", "%v", err)}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- link.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	give := time.After(attachLimit)
	for decided := false; !decided; {
		select {
		case <-ctx.Done():
			decided = true
		case <-give:
			decided = true
		case <-poll.C:
			s := link.Status()
			decided = s.State == component.Connected || s.LastError != ""
		}
	}
	if link.Connected() {
		select {
		case <-time.After(listenFor):
		case <-ctx.Done():
		}
	}
	list := Server(ctx, link, cfg, listenFor, offers.from)
	if cfg.Pusher.Push != nil {
		list = append(list, Push(ctx, link, cfg, offers.from)...)
	}
	return list
}
