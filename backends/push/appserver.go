package push

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/registration"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// dialectPush is what the events call their feed that came by a publish, or take its
// way.
const dialectPush = "push"

// optionSecret is the publish-option that proves that whoever publishes was told so by
// the device's owner.
const optionSecret = "secret"

// NewNotification returns the event of a summary that is to reach the device of that
// node. publisher is who has published it, own the component.
func NewNotification(publisher, own jid.JID, node string, owner jid.JID, s devices.Summary, now time.Time) event.Event {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	from, body := s.Sender(), s.Body()
	if from == "" {
		from = publisher
	}
	return event.Event{
		ID: hex.EncodeToString(id[:]), Kind: event.Notification, Type: "normal",
		From: from, To: own.Bare() + jid.JID("/"+node), User: owner,
		Body: body, HasBody: body != "", Time: now, Host: publisher.Domain(), Dialect: dialectPush, Packet: s.Packet(),
	}
}

// PublishRefused counts a publish of a server for a node that was answered with an error:
// why is devices.ErrUnknown or devices.ErrSecret. What has named a device's node, which
// nobody can guess, is explained to the device's owner; the rest must not push out what
// is remembered for others. It is safe for concurrent use.
func (b *Backend) PublishRefused(ctx context.Context, server jid.JID, node string, why error) {
	result := publishForbidden
	if errors.Is(why, devices.ErrUnknown) {
		result = publishUnknown
	}
	b.o.Log.Debug("push: a publish for a device was refused", "server", string(server), "node", node, "err", why)
	if !errors.Is(why, devices.ErrSecret) || b.o.Devices == nil {
		b.tally.add(result)
		return
	}
	about, err := b.o.Devices.Owner(ctx, node)
	switch {
	case err != nil: // it has gone meanwhile
		b.tally.add(result)
		return
	case about == "":
		about = b.o.Own.Bare() + jid.JID("/"+node)
	}
	b.note(about, "", result) // there is no event
}

// toDevice takes a notification for a registration that names the component itself the
// way of one that was published: as an event of its own, so that a device that has to
// wait delays no other.
func (b *Backend) toDevice(ctx context.Context, s *registration.Service, sum *Summary) error {
	switch err := b.o.Devices.Verify(ctx, s.Node, s.Option(optionSecret)); {
	case errors.Is(err, devices.ErrUnknown):
		return backends.ErrGone
	case errors.Is(err, devices.ErrSecret):
		return &Refusal{Type: "auth", Condition: "forbidden"}
	case err != nil:
		return err
	}
	e := NewNotification(jid.JID(sum.Notice.Recipient.Domain()), b.o.Own, s.Node, sum.Notice.Recipient, withBadge(sum), sum.Time)
	return b.enqueue(ctx, e)
}

// withBadge adds the number of all unread messages, which only we know.
func withBadge(sum *Summary) devices.Summary {
	fields := append(devices.Summary(nil), sum.Fields...)
	if sum.Notice.Total > 0 {
		fields = append(fields, decide.Field{Name: notify.KeyBadge, Value: strconv.Itoa(sum.Notice.Total)})
	}
	return fields
}

// deliver brings a notification to its device. What will never be delivered is no
// error: the event is done with it.
func (b *Backend) deliver(ctx context.Context, e *event.Event) error {
	about := e.User
	if about == "" {
		about = e.To // the device, which nobody owns
	}
	result, err := b.toProvider(ctx, e)
	if err != nil && errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return err // nothing was decided
	}
	b.noteOf(about, e.ID, result, target{service: string(e.To.Bare()), node: e.To.Resource()})
	return err
}

func (b *Backend) toProvider(ctx context.Context, e *event.Event) (outcome, error) {
	if b.o.Now().Sub(e.Time) > b.o.MaxAge {
		return outcome(decide.Expired), nil
	}
	summary, err := devices.ReadSummary(e.Packet)
	if err != nil {
		return failed, backends.Permanent(errors.New("the notification is no XML"))
	}
	err = b.o.Devices.Deliver(ctx, e.To.Resource(), &devices.Message{EventID: e.ID, Time: e.Time, Owner: e.User, Summary: summary})
	var wait *backends.WaitError
	var permanent *backends.PermanentError
	switch {
	case err == nil:
		return pushed, nil
	case errors.Is(err, devices.ErrCoalesced):
		return coalesced, nil
	case errors.Is(err, devices.ErrUnknown):
		return gone, nil
	case errors.Is(err, backends.ErrGone):
		return dead, nil
	case errors.Is(err, devices.ErrLimited):
		return limited, err
	case errors.As(err, &wait):
		return waiting, err
	case errors.Is(err, notify.ErrExpired):
		return outcome(decide.Expired), nil
	case errors.As(err, &permanent):
		b.o.Log.Debug("push: a notification will never be delivered", "user", string(e.User), "event", e.ID, "err", err)
		return refused, nil
	}
	return failed, err
}
