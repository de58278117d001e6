// Package push notifies users who are offline of messages, through the push
// services that they have registered (XEP-0357), as MongooseIM's
// mod_event_pusher_push does.
package push

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/internal/complain"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/route"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/store"
	"eventpusher/backends/push/unread"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// Name is what the backend is called in configuration, logs and metrics.
const Name = "push"

// DefaultMaxAge is how old a message may be for its notification to make sense.
const DefaultMaxAge = time.Hour

// Options is what a Backend needs.
type Options struct {
	Decider decide.Decider
	// Virtual are the push services that stand for Gateway, in the form of
	// virtual_pubsub_hosts: a name, or "prefix.@HOST@", where @HOST@ is the
	// recipient's domain.
	Virtual []string
	Gateway notify.Sender // MongoosePush; nil: the virtual ones take nothing
	// Lacks names the publish-options without which Gateway sends nothing, of those that a
	// registration has not, or has empty; nil: it needs none.
	Lacks func([]notify.Field) []string
	// Own is the component's own domain; what is registered there goes to Devices.
	Own     jid.JID
	Devices *devices.Delivery // nil: like any other service
	// Served are the hosts whose users register here.
	Served jid.Domains
	// Lanes is how many messages and notifications are under way at once; at least 4.
	Lanes int
	// Routes are the ways to all destinations, which Devices shares; nil: new ones.
	Routes *route.Routes
	// MaxAge is how old a message may be; 0 means DefaultMaxAge.
	MaxAge time.Duration
	Log    *slog.Logger     // nil is silent
	Now    func() time.Time // default time.Now
}

// Backend implements backends.Backend. It is safe for concurrent use.
type Backend struct {
	o   Options
	own jid.Domains // Options.Own
	// network sends to all push services but the virtual ones and our own.
	network  notify.Sender
	services xmpp.Services
	store    store.Registrations
	// forward keeps events and lets them come back by Publish.
	forward  Forward
	messages *reports // by decide.Notice.Key
	made     *idSet   // notifications that were kept as events
	// settled are notifications, by likeness. If a process is killed before the outbox has
	// saved that a message is done with, the message makes its notifications again. Each
	// comes after the one of before is settled, since both have the same Event.Key.
	settled    *reports
	failing    *failing
	backlog    *backlog
	complaints *complain.Log
	unread     *unread.Counts
	shared     Unread // nil: there is no other instance
	removals   *removals
	journal    *journal.Journal
}

// New returns the backend. It starts nothing. Before the first Publish it has to be
// attached.
func New(o Options) *Backend {
	if o.MaxAge <= 0 {
		o.MaxAge = DefaultMaxAge
	}
	o.Lanes = max(o.Lanes, 4)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lacks == nil {
		o.Lacks = func([]notify.Field) []string { return nil }
	}
	if o.Routes == nil {
		o.Routes = route.New(route.Options{Lanes: o.Lanes, Log: o.Log})
	}
	o.Virtual = folded(o.Virtual)
	return &Backend{
		o: o, own: jid.NewDomains(string(o.Own)), messages: newReports(), made: newIDSet(), settled: newReports(), failing: newFailing(), backlog: newBacklog(), complaints: complain.New(o.Log, o.Now), unread: unread.New(),
		removals: newRemovals(), journal: journal.New(o.Log, o.Now),
	}
}

// Forward keeps events of the backend's own, all or none, and lets them come back by
// Publish: nil means that they are on disk. It blocks until then, or until ctx ends. It is
// safe for concurrent use.
type Forward func(ctx context.Context, events []event.Event) error

// Attach says where registrations are kept, how to reach the push services and how to keep
// events. It is called once, before anything but Wants; the store stays the caller's.
// Without forward the backend can be asked, and publishes nothing.
func (b *Backend) Attach(kept store.Registrations, services xmpp.Services, forward Forward) {
	b.store, b.services, b.network, b.forward = kept, services, xmpp.New(services), forward
}

// AttachUnread says who counts unread messages where several instances share the events.
// It is called at most once, as Attach.
func (b *Backend) AttachUnread(u Unread) { b.shared = u }

// Served returns the hosts whose users register here.
func (b *Backend) Served() jid.Domains { return b.o.Served }

// Devices returns how devices are reached, nil if there are none.
func (b *Backend) Devices() *devices.Delivery { return b.o.Devices }

// Name implements backends.Backend.
func (b *Backend) Name() string { return Name }

// Wants implements backends.Backend: a message whose recipient is offline, and
// with the enhanced plugin one that a session has not acknowledged; a notification for a
// device; the end of an account. What it declines is counted by reason as well. Beside it learns who is back, has read
// what and is no more, which changes no answer.
func (b *Backend) Wants(e *event.Event) bool {
	switch {
	case e.Kind == event.UserStatus:
		if e.Online {
			b.unread.Back(e.User, e.Time)
		}
		return false
	case e.Kind == event.Chat && e.Direction == event.In:
		b.unread.Read(e.User, e.To.Bare(), e.Time)
		return false
	case e.Kind == event.Notification:
		return b.o.Devices != nil
	case e.Kind == event.Push: // which only we make
		return true
	case e.Kind == event.Removed:
		b.accountEnds(e)
		return true
	}
	r := b.o.Decider.Concerns(e)
	if r == decide.Push {
		return true
	}
	b.journal.Note(e.User, e.ID, journal.Outcome(r))
	return false
}

// Declined implements backends.Declining.
func (b *Backend) Declined(e *event.Event, err error) {
	o := journal.Withheld
	if err != nil {
		o = journal.Undecided
	}
	b.journal.Note(e.User, e.ID, o)
}

// Limits implements backends.Backend.
func (b *Backend) Limits() backends.Limits {
	return backends.Limits{Lanes: b.o.Lanes, Batch: 1}
}

// Close implements backends.Backend. It closes the gateways.
func (b *Backend) Close() error {
	var errs []error
	if c, ok := b.o.Gateway.(io.Closer); ok {
		errs = append(errs, c.Close())
	}
	if b.o.Devices != nil {
		errs = append(errs, b.o.Devices.Close())
	}
	return errors.Join(errs...)
}

// Decisions lists what was decided lately about messages to a user, oldest first. It
// is safe for concurrent use, as Explain is.
func (b *Backend) Decisions(user jid.JID) []journal.Decision { return b.journal.Decisions(user) }

// Counts implements backends.Counting: every decision, by its reason.
func (b *Backend) Counts() map[string]uint64 { return b.journal.Counts() }

// Publish implements backends.Backend. A message becomes one notification for each
// registration of its recipient; these come back and are sent.
func (b *Backend) Publish(ctx context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	for i := range batch {
		errs[i] = b.handle(ctx, &batch[i])
	}
	return errs
}

func (b *Backend) handle(ctx context.Context, e *event.Event) error {
	switch e.Kind {
	case event.Notification, event.Push:
		return b.deliver(ctx, e)
	case event.Removed:
		return b.removeAccount(ctx, e)
	}
	return b.expand(ctx, e)
}

// hostPlaceholder stands for the recipient's domain at the end of a virtual host.
const hostPlaceholder = "@HOST@"

// folded writes virtual hosts as the addresses of registrations are.
func folded(hosts []string) []string {
	var list []string
	for _, v := range hosts {
		prefix, ok := strings.CutSuffix(v, hostPlaceholder)
		if ok {
			list = append(list, strings.ToLower(prefix)+hostPlaceholder)
			continue
		}
		for form := range jid.NewDomains(v).Forms() {
			list = append(list, string(form))
		}
	}
	return list
}

// virtual reports whether a service is one of the virtual ones for a recipient on
// that host.
func (b *Backend) virtual(service jid.JID, host string) bool {
	for _, v := range b.o.Virtual {
		prefix, everywhere := strings.CutSuffix(v, hostPlaceholder)
		if rest, ok := strings.CutPrefix(string(service), prefix); ok && (everywhere && rest == host || !everywhere && rest == "") {
			return true
		}
	}
	return false
}
