package push

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"eventpusher/backends"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/store"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// optionSecret is the publish-option that proves that the device's owner has registered it.
const optionSecret = "secret"

// expand makes one event of a message for each registration of its recipient, and returns
// when all are kept: then nothing is left to do for the message. Each has an id of its
// own that follows from message and registration, so that a repetition can be recognised.
func (b *Backend) expand(ctx context.Context, e *event.Event) error {
	n, reason := b.o.Decider.Decide(e)
	if reason == decide.Push && b.o.Now().Sub(e.Time) > b.o.MaxAge {
		reason = decide.Expired
	}
	if reason != decide.Push {
		b.journal.Note(e.User, e.ID, journal.Outcome(reason))
		return nil
	}
	first := b.messages.first(n.Key, e).String()
	services, err := b.registered(ctx, &n)
	if err != nil {
		return err
	}
	if len(services) == 0 {
		b.journal.Note(n.Recipient, e.ID, journal.NotEnabled)
		return nil
	}
	b.count(ctx, &n, first, e.Time)
	var list []event.Event
	var failures []error
	for i := range services {
		s := &services[i]
		of := journal.Target{Service: string(s.PubSub), Node: s.Node, Message: first}
		if reason := s.Rules.Refuses(e, &n); reason != decide.Push {
			b.journal.NoteOf(n.Recipient, e.ID, journal.Outcome(reason), of)
			continue
		}
		id := notificationID(s, n.Key, first)
		if !b.made.add(id) {
			b.journal.NoteOf(n.Recipient, e.ID, journal.Duplicate, of)
			continue
		}
		one, result, err := b.forRegistration(ctx, s, &n, e)
		one.ID = id
		switch {
		case err != nil:
			b.made.remove(id)
			b.journal.NoteOf(n.Recipient, e.ID, journal.Failed, of)
			failures = append(failures, err)
		case result != journal.Queued:
			b.journal.NoteOf(n.Recipient, e.ID, result, of)
		default:
			list = append(list, one)
		}
	}
	if len(list) > 0 {
		failures = append(failures, b.keep(ctx, list))
	}
	return errors.Join(failures...)
}

// keep appends the events to the outbox.
func (b *Backend) keep(ctx context.Context, list []event.Event) error {
	err := b.forward(ctx, list)
	result := journal.Queued
	if err != nil {
		result, err = journal.Failed, fmt.Errorf("push: notifications could not be kept: %w", err)
	}
	for i := range list {
		if err != nil {
			b.made.remove(list[i].ID)
		}
		b.journal.NoteOf(list[i].User, list[i].StanzaID, result, journal.Target{Service: string(list[i].To.Bare()), Node: list[i].To.Resource()})
	}
	return err
}

// registered returns the registrations that the notice is for.
func (b *Backend) registered(ctx context.Context, n *decide.Notice) ([]store.Service, error) {
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

// forRegistration returns the event for a registration. A result other than queued says why
// there is none.
func (b *Backend) forRegistration(ctx context.Context, s *store.Service, n *decide.Notice, e *event.Event) (event.Event, journal.Outcome, error) {
	one := event.Event{
		Kind: event.Push, Type: e.Type, From: n.Conversation, To: s.PubSub + "/" + jid.JID(s.Node), User: n.Recipient,
		StanzaID: e.ID, Time: e.Time, Host: n.Recipient.Domain(), Dialect: dialectPush,
	}
	switch b.way(s.PubSub, n.Recipient.Domain()) {
	case ByDevices:
		one.Kind, one.To = event.Notification, b.o.Own.Bare()+jid.JID("/"+s.Node)
		summary, err := deviceSummary(s.Rules, n, e)
		if err != nil {
			return one, journal.Failed, err
		}
		one.Packet = summary.Packet()
		_, err = b.o.Devices.Store().Verify(ctx, s.Node, s.Option(optionSecret))
		switch {
		case errors.Is(err, store.ErrUnknown):
			result, err := b.forget(ctx, n.Recipient, s, journal.Disabled)
			return one, result, err
		case errors.Is(err, store.ErrSecret):
			return one, journal.Refused, nil
		case err != nil:
			return one, journal.Failed, err
		}
	case ByGateway:
		if b.o.Gateway == nil || s.Rules.Encrypted() { // which MongoosePush cannot carry
			return one, journal.Refused, nil
		}
		if len(b.o.Lacks(s.Options)) > 0 {
			return one, journal.Incomplete, nil
		}
		one.Packet = notify.Element(n.Fields())
	default:
		var err error
		if one.Packet, err = element(s.Rules, n, e); err != nil {
			return one, journal.Failed, err
		}
	}
	return one, journal.Queued, nil
}

// element returns the notification for a push service of the network.
func element(r *decide.UserRules, n *decide.Notice, e *event.Event) (string, error) {
	if !r.Encrypted() {
		return notify.Urgent(n.Fields(), r != nil && r.Priority), nil
	}
	sealed, err := r.Encryption.Seal(n.Private(e))
	return sealed.Element(r.Priority), err
}

// deviceSummary returns the notification for a device that is registered here.
func deviceSummary(r *decide.UserRules, n *decide.Notice, e *event.Event) (devices.Summary, error) {
	if !r.Encrypted() {
		return withBadge(n), nil
	}
	sealed, err := r.Encryption.Seal(n.Private(e))
	return devices.NewSummary(&notify.Published{Encrypted: sealed}), err
}

// withBadge adds the number of all unread messages, which only we know.
func withBadge(n *decide.Notice) devices.Summary {
	fields := devices.Summary(n.Fields())
	if n.Total > 0 {
		fields = append(fields, notify.Field{Name: notify.KeyBadge, Value: strconv.Itoa(n.Total)})
	}
	return fields
}

// notificationID returns the id of the notification of a message for a registration. first is
// the mark of the message's first event. The first half of the id, its likeness, is the same
// for messages with the same key.
func notificationID(s *store.Service, key, first string) string {
	like, own := digest(key, string(s.PubSub), s.Node), digest(first, string(s.PubSub), s.Node)
	return hex.EncodeToString(append(like[:], own[:]...))
}

// likeness returns the half of a notification's id that messages with the same sender, id
// and text have in common.
func likeness(id string) string { return id[:len(id)/2] }

// digest returns 64 bits of a SHA-256.
func digest(parts ...string) [8]byte {
	b := make([]byte, 0, 128)
	for _, part := range parts {
		b = append(append(b, part...), 0)
	}
	sum := sha256.Sum256(b)
	return [8]byte(sum[:])
}

// forget removes a registration whose service or device is gone, unless it was renewed
// since. result is what is noted if it was removed.
func (b *Backend) forget(ctx context.Context, owner jid.JID, s *store.Service, result journal.Outcome) (journal.Outcome, error) {
	removed, err := b.store.Remove(ctx, owner, s)
	switch {
	case err != nil:
		return journal.Failed, fmt.Errorf("a registration that is gone cannot be removed: %w", err)
	case !removed:
		return journal.Waiting, backends.Wait(renewedRetry, errRenewed)
	}
	b.o.Log.Debug("push: a registration was removed, since its device is gone", "user", string(owner), "service", string(s.PubSub))
	return result, nil
}
