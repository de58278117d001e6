package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/route"
	"eventpusher/backends/push/send/mongoosepush"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// renewedRetry is when a notification is sent by a registration that was renewed while an
// answer about the old one was on its way.
const renewedRetry = 10 * time.Millisecond

var errRenewed = errors.New("the registration was renewed meanwhile")

// deliver brings a notification to its registration or device. What will never be
// delivered is no error: the event is done with it.
func (b *Backend) deliver(ctx context.Context, e *event.Event) error {
	about, cause := e.User, e.StanzaID
	if about == "" {
		about = e.To // the device, which nobody owns
	}
	if cause == "" {
		cause = e.ID
	}
	send := b.toDevice
	if e.Kind == event.Push {
		send = b.toService
	}
	result, err := journal.Outcome(decide.Expired), error(nil)
	switch {
	case b.settled.has(likeness(e.ID), e):
		result = journal.Duplicate
	case b.o.Now().Sub(e.Time) <= b.o.MaxAge:
		result, err = send(ctx, e)
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // nothing was decided
	}
	if err == nil && e.StanzaID != "" {
		b.settled.first(likeness(e.ID), e)
	}
	b.journal.NoteOf(about, cause, result, journal.Target{Service: string(e.To.Bare()), Node: e.To.Resource()})
	return err
}

// toDevice brings a notification to a device that is registered here.
func (b *Backend) toDevice(ctx context.Context, e *event.Event) (journal.Outcome, error) {
	if b.o.Devices == nil {
		return journal.Gone, nil
	}
	summary, err := devices.ReadSummary(e.Packet)
	if err != nil {
		return journal.Failed, backends.Permanent(errors.New("the notification is no XML"))
	}
	err = b.o.Devices.Deliver(ctx, e.To.Resource(), &devices.Message{EventID: e.ID, Time: e.Time, Owner: e.User, Summary: summary, Decided: e.StanzaID != ""})
	switch {
	case err == nil:
		return journal.Pushed, nil
	case errors.Is(err, devices.ErrCoalesced):
		return journal.Coalesced, nil
	case errors.Is(err, devices.ErrNoCall):
		return journal.NoCall, nil
	case errors.Is(err, store.ErrUnknown):
		return journal.Gone, nil
	case errors.Is(err, backends.ErrGone):
		return journal.Dead, nil
	case errors.Is(err, devices.ErrLimited):
		return journal.Limited, err
	case errors.As(err, new(*backends.WaitError)):
		return journal.Waiting, err
	case errors.Is(err, notify.ErrExpired):
		return journal.Outcome(decide.Expired), nil
	case errors.As(err, new(*backends.PermanentError)):
		b.o.Log.Debug("push: a notification will never be delivered", "user", string(e.User), "event", e.ID, "err", err)
		return journal.Refused, nil
	}
	return journal.Failed, err
}

// toService brings a notification to the service of a registration, as it is registered
// now.
func (b *Backend) toService(ctx context.Context, e *event.Event) (journal.Outcome, error) {
	pubsub, node := e.To.Bare(), e.To.Resource()
	way := b.way(pubsub, e.User.Domain())
	key := b.route(way, pubsub)
	if err := b.o.Routes.Resting(key); err != nil {
		return b.postponed(e, journal.Waiting, err)
	}
	services, err := b.store.Services(ctx, e.User)
	if err != nil {
		return journal.Failed, err
	}
	i := slices.IndexFunc(services, func(s store.Service) bool { return s.PubSub == pubsub && s.Node == node })
	if i < 0 {
		return journal.Withdrawn, nil
	}
	s := &services[i]
	sender, to := b.sender(way, s)
	if sender == nil {
		return journal.Refused, nil
	}
	if b.failing.refuses(e.User, s, b.o.Now) {
		return journal.Refused, nil
	}
	n := notify.Notification{ID: e.ID, Time: e.Time, TTL: b.o.MaxAge, Element: e.Packet}
	err = b.o.Routes.Do(ctx, key, string(e.User), limit(sender), func(ctx context.Context) error { return sender.Send(ctx, to, n) })
	return b.conclude(ctx, e, s, err)
}

// sender returns what sends for a registration, nil if it cannot be sent any more, and
// where to.
func (b *Backend) sender(way Way, s *store.Service) (notify.Sender, notify.Target) {
	if way == ByIQ {
		return b.network, notify.Target{Kind: notify.XMPP, Address: config.Secret(s.PubSub), Node: s.Node, Options: s.Options}
	}
	if way == ByDevices || b.o.Gateway == nil {
		return nil, notify.Target{}
	}
	return b.o.Gateway, mongoosepush.Target(s.Options)
}

// limit returns how long a sender may take if it says so. Others bound themselves.
func limit(s notify.Sender) time.Duration {
	if timed, ok := s.(interface{ Timeout() time.Duration }); ok {
		return timed.Timeout()
	}
	return 0
}

// route returns the destination of a service.
func (b *Backend) route(way Way, pubsub jid.JID) route.Key {
	if way == ByIQ {
		return route.Key{Kind: string(notify.XMPP), Name: route.Domain(pubsub.Domain()), Chosen: true}
	}
	return route.Key{Kind: string(notify.MongoosePush)}
}

// conclude says what the answer to a notification means for it and for its registration. A
// registration ends if its node is gone, or if nothing but refusals came for long.
func (b *Backend) conclude(ctx context.Context, e *event.Event, s *store.Service, err error) (journal.Outcome, error) {
	var link *xmpp.LinkError
	switch {
	case err == nil:
		b.failing.succeeds(e.User, s)
		return journal.Pushed, nil
	case errors.As(err, new(*backends.WaitError)):
		return b.postponed(e, journal.Waiting, err)
	case errors.Is(err, backends.ErrGone):
		b.failing.succeeds(e.User, s)
		return b.forget(ctx, e.User, s, journal.Disabled)
	case errors.Is(err, notify.ErrExpired):
		return journal.Outcome(decide.Expired), nil
	case errors.As(err, new(*backends.PermanentError)):
		b.o.Log.Debug("push: the service refuses the notification", "user", string(e.User), "service", string(s.PubSub), "err", err)
		if errors.As(err, new(*xmpp.Refusal)) && b.failing.fails(e.User, s, b.o.Now()) {
			return b.forget(ctx, e.User, s, journal.Disabled)
		}
		return journal.Refused, nil
	case errors.As(err, &link):
		return journal.Failed, fmt.Errorf("push service %s: %w", s.PubSub, link.Err)
	case errors.As(err, new(*backends.PausedError)):
		b.complaints.Add(slog.LevelError, "push: MongoosePush refuses our access; its notifications wait until that is put right", err)
		return b.postponed(e, journal.Failed, err)
	case errors.Is(err, context.DeadlineExceeded):
		return b.postponed(e, journal.TimedOut, err)
	}
	return b.postponed(e, journal.Failed, err)
}

// postponed returns what is tried again later, unless so many newer notifications wait for
// the same registration that they stand for this one.
func (b *Backend) postponed(e *event.Event, result journal.Outcome, err error) (journal.Outcome, error) {
	if b.backlog.superseded(string(e.User)+"\x00"+string(e.To), e.Time) {
		return journal.Coalesced, nil
	}
	if errors.As(err, new(*backends.WaitError)) {
		return result, err
	}
	return result, backends.Elsewhere(err)
}
