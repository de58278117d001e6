package push

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/store"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// dialectPush is what the events call their feed that came by a publish, or take its
// way.
const dialectPush = "push"

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
// why is store.ErrUnknown or store.ErrSecret. What has named a device's node, which
// nobody can guess, is explained to the device's owner; the rest must not push out what
// is remembered for others. It is safe for concurrent use.
func (b *Backend) PublishRefused(ctx context.Context, server jid.JID, node string, why error) {
	result := journal.PublishForbidden
	if errors.Is(why, store.ErrUnknown) {
		result = journal.PublishUnknown
	}
	b.o.Log.Debug("push: a publish for a device was refused", "server", string(server), "node", node, "err", why)
	if !errors.Is(why, store.ErrSecret) || b.o.Devices == nil {
		b.journal.Count(result)
		return
	}
	device, err := b.o.Devices.Store().Get(ctx, node)
	about := device.Owner
	switch {
	case err != nil: // it has gone meanwhile
		b.journal.Count(result)
		return
	case about == "":
		about = b.o.Own.Bare() + jid.JID("/"+node)
	}
	b.journal.Note(about, "", result) // there is no event
}
