// Package push notifies users who are offline of messages, through the push
// services that they have registered (XEP-0357), as MongooseIM's
// mod_event_pusher_push does.
package push

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/registration"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// Name is what the backend is called in configuration, logs and metrics.
const Name = "push"

// DefaultMaxAge is how old a message may be for its notification to make sense.
const DefaultMaxAge = time.Hour

// batchSize is how many events a lane notifies of at once. No two of a batch belong
// to one conversation, so they need no order among themselves.
const batchSize = 16

// Services publishes at the push services of the XMPP network.
type Services interface {
	// Set sends an IQ of type set with that payload and waits for the answer: nil
	// for a result, a *Refusal for an error, a context.DeadlineExceeded if nobody
	// answers within its own time, anything else if nobody was asked.
	// It is safe for concurrent use.
	Set(ctx context.Context, to jid.JID, payload []byte) error
}

// Refusal is the error that a push service has answered with (RFC 6120 section 8.3).
type Refusal struct {
	Type, Condition string
}

// Error implements error.
func (r *Refusal) Error() string {
	return "the push service answered " + r.Condition + " (" + r.Type + ")"
}

// Gateway takes notifications for devices without the detour over a push service.
type Gateway interface {
	// Push delivers a summary (XEP-0357 section 6) for the node of a service. Its
	// errors are those of package backends; ErrGone says that the device is no more.
	// It is safe for concurrent use.
	Push(ctx context.Context, s *registration.Service, n *Summary) error
	// Lacks names the publish-options that the registration would need and has not, or
	// has empty. Push is not called for one that lacks any. It is safe for concurrent use.
	Lacks(s *registration.Service) []string
}

// Summary is a notification as it goes to a push service.
type Summary struct {
	// EventID is the event's id, the same over all attempts.
	EventID string
	Time    time.Time
	Fields  []decide.Field
	Notice  *decide.Notice
}

// Options is what a Backend needs.
type Options struct {
	Decider decide.Decider
	// Virtual are the push services that stand for Gateway, in the form of
	// virtual_pubsub_hosts: a name, or "prefix.@HOST@", where @HOST@ is the
	// recipient's domain.
	Virtual []string
	Gateway Gateway // nil: the virtual ones take nothing
	// Own is the component's own domain; what is registered there goes to Devices.
	Own     jid.JID
	Devices *devices.Delivery // nil: like any other service
	Lanes   int               // at least 1
	// MaxAge is how old a message may be; 0 means DefaultMaxAge.
	MaxAge time.Duration
	Log    *slog.Logger     // nil is silent
	Now    func() time.Time // default time.Now
}

// Backend implements backends.Backend. It is safe for concurrent use.
type Backend struct {
	o   Options
	own jid.Domains // Options.Own
	// network takes the notifications for all push services but the virtual ones and
	// our own.
	network *network
	store   registration.Store
	// enqueue keeps an event and lets it come back by Publish.
	enqueue  func(context.Context, event.Event) error
	seen     *seen
	laggards *laggards
	unread   *unread
	shared   Unread // nil: there is no other instance
	removals *removals
	history  *history
	tally    tally
}

// New returns the backend. It starts nothing. Before the first Publish it has to be
// attached.
func New(o Options) *Backend {
	if o.MaxAge <= 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.Lanes < 1 {
		o.Lanes = 1
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Virtual = folded(o.Virtual)
	return &Backend{o: o, own: jid.NewDomains(string(o.Own)), seen: newSeen(), laggards: newLaggards(), unread: newUnread(), removals: newRemovals(), history: newHistory(), tally: newTally()}
}

// Attach says where registrations are kept and how to reach the push services. It is
// called once, before anything but Wants; the store stays the caller's.
func (b *Backend) Attach(store registration.Store, services Services) {
	b.store, b.network = store, newNetwork(services)
}

// AttachDevices says how the backend keeps an event that it will be given again: nil
// means that it is on disk, or that a filter has decided against it. With devices it
// is called once, as Attach.
func (b *Backend) AttachDevices(enqueue func(context.Context, event.Event) error) {
	b.enqueue = enqueue
}

// AttachUnread says who counts unread messages where several instances share the events.
// It is called at most once, as Attach.
func (b *Backend) AttachUnread(u Unread) { b.shared = u }

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
			b.unread.back(e.User, e.Time)
		}
		return false
	case e.Kind == event.Chat && e.Direction == event.In:
		b.unread.read(e.User, e.To.Bare(), e.Time)
		return false
	case e.Kind == event.Notification:
		return b.o.Devices != nil
	case e.Kind == event.Removed:
		b.accountEnds(e)
		return true
	}
	r := b.o.Decider.Concerns(e)
	if r == decide.Push {
		return true
	}
	b.note(e.User, e.ID, outcome(r))
	return false
}

// Declined implements backends.Declining.
func (b *Backend) Declined(e *event.Event, err error) {
	o := withheld
	if err != nil {
		o = undecided
	}
	b.note(e.User, e.ID, o)
}

// Limits implements backends.Backend.
func (b *Backend) Limits() backends.Limits {
	return backends.Limits{Lanes: b.o.Lanes, Batch: batchSize}
}

// Close implements backends.Backend. It closes the gateways.
func (b *Backend) Close() error {
	var errs []error
	if b.network != nil {
		b.network.close()
	}
	if c, ok := b.o.Gateway.(io.Closer); ok {
		errs = append(errs, c.Close())
	}
	if b.o.Devices != nil {
		errs = append(errs, b.o.Devices.Close())
	}
	return errors.Join(errs...)
}

// Counts implements backends.Counting: every decision, by its reason.
func (b *Backend) Counts() map[string]uint64 { return b.tally.counts() }

// Publish implements backends.Backend.
func (b *Backend) Publish(ctx context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	if len(batch) == 1 {
		errs[0] = b.handle(ctx, &batch[0])
		return errs
	}
	var all sync.WaitGroup
	for i := range batch {
		if followsSameDevice(batch, i) {
			continue
		}
		all.Go(func() {
			errs[i] = b.handle(ctx, &batch[i])
			// What is for one device goes one after the other.
			for j := i + 1; batch[i].Kind == event.Notification && j < len(batch); j++ {
				if batch[j].Kind == event.Notification && batch[j].To == batch[i].To {
					errs[j] = b.handle(ctx, &batch[j])
				}
			}
		})
	}
	all.Wait()
	return errs
}

// followsSameDevice reports whether an earlier notification is for the same device.
func followsSameDevice(batch []event.Event, i int) bool {
	if batch[i].Kind != event.Notification {
		return false
	}
	return slices.ContainsFunc(batch[:i], func(e event.Event) bool {
		return e.Kind == event.Notification && e.To == batch[i].To
	})
}

func (b *Backend) handle(ctx context.Context, e *event.Event) error {
	switch e.Kind {
	case event.Notification:
		return b.deliver(ctx, e)
	case event.Removed:
		return b.removeAccount(ctx, e)
	}
	return b.notify(ctx, e)
}

// notify deals with one event: nil when every service that is to know does, or
// will never.
func (b *Backend) notify(ctx context.Context, e *event.Event) error {
	n, reason := b.o.Decider.Decide(e)
	if reason == decide.Push && b.o.Now().Sub(e.Time) > b.o.MaxAge {
		reason = decide.Expired
	}
	if reason != decide.Push {
		b.note(e.User, e.ID, outcome(reason))
		return nil
	}
	services, err := b.registered(ctx, &n)
	if err != nil {
		return err
	}
	if len(services) == 0 {
		b.note(n.Recipient, e.ID, notEnabled)
		return nil
	}
	b.count(ctx, &n, e.Time)
	s := Summary{EventID: e.ID, Time: e.Time, Fields: n.Fields(), Notice: &n}
	return worst(b.remaining(services, b.tellAll(ctx, services, &s), &s))
}

// registered returns the registrations that the notice is for.
func (b *Backend) registered(ctx context.Context, n *decide.Notice) ([]registration.Service, error) {
	all, err := b.store.Services(ctx, n.Recipient)
	if err != nil || n.Session == "" {
		return all, err
	}
	for i := range all {
		if slices.Contains(all[i].Sessions, n.Session.Resource()) {
			return all[i : i+1], nil
		}
	}
	return nil, nil
}

// worst returns the error that says best when to try again, or else those that are not
// the fault of one push service alone; nil if there is none.
func worst(errs []error) error {
	var common []error
	for _, err := range errs {
		if errors.As(err, new(*backends.RetryAfterError)) {
			return err
		}
		if !errors.As(err, new(*backends.ElsewhereError)) && !errors.As(err, new(*backends.WaitError)) {
			common = append(common, err)
		}
	}
	if len(common) > 0 {
		return errors.Join(common...)
	}
	return errors.Join(errs...)
}
