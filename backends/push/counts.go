package push

import (
	"context"
	"time"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/unread"
)

// Unread counts for several instances, of which each notifies of its part of the
// conversations and one alone, that has the link to the server, learns what was read.
type Unread interface {
	// Add counts a message for a user who is offline and returns how many the
	// conversation with has, and all of them. It counts a message once, however often it
	// is called, and blocks for no longer than ctx allows. It is safe for concurrent use.
	//
	// ok says that somebody could count; false is no reason to keep the message waiting.
	Add(ctx context.Context, m *unread.Message) (count, total int, ok bool)
}

// Unread returns what this instance has learned from Wants. The instance that has the link
// counts for all. When it gets the link it has to clear the counts: what was read since it
// had it last, if ever, it has not learned of.
func (b *Backend) Unread() *unread.Counts { return b.unread }

// count enters how many messages are unread. Where nobody can say, while no instance has
// the link, the conversation begins at one and nothing is said of the others.
func (b *Backend) count(ctx context.Context, n *decide.Notice, message string, at time.Time) {
	m := &unread.Message{User: n.Recipient, With: n.Conversation, Key: message, Time: at}
	if b.shared == nil {
		n.Count, n.Total = b.unread.Add(m)
	} else if count, total, ok := b.shared.Add(ctx, m); ok {
		n.Count, n.Total = count, total
	} else {
		n.Count, n.Total = 1, 0
	}
}
