package push

import (
	"context"
	"hash/fnv"
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/backends/push/decide"
	"eventpusher/internal/jid"
)

// Bounds of what is counted.
const (
	unreadUsers         = 1 << 16
	unreadConversations = 256 // of one user
	unreadKnown         = 64  // messages of one conversation
	markPlaces          = 1 << 16
)

// unread counts for each user who is offline the messages of each conversation
// since he was last there: MongooseIM asks mod_inbox for it, which no other server
// has. Coming online, and writing in a conversation, is taken for having read.
//
// The counts are a service to the eye: what falls out of the bounds, or a restart
// forgets, begins at one again.
type unread struct {
	mu    sync.Mutex
	users *simplelru.LRU[jid.JID, *unreadUser]
	marks marks
}

// Unread counts for several instances, of which each notifies of its part of the
// conversations and one alone, that has the link to the server, learns what was read.
type Unread interface {
	// Add counts a message for a user who is offline and returns how many the
	// conversation with has, and all of them. It counts a message once, however often it
	// is called, and blocks for no longer than ctx allows. It is safe for concurrent use.
	//
	// ok says that somebody could count; false is no reason to keep the message waiting.
	Add(ctx context.Context, m *UnreadMessage) (count, total int, ok bool)
}

// CountUnread counts by what this instance has learned from Wants; see Unread.Add. It is
// for the instance that has the link, which counts for all, and safe for concurrent use.
func (b *Backend) CountUnread(m *UnreadMessage) (count, total int) {
	return b.unread.add(m.User, m.With, m.Key, m.Time)
}

// ForgetUnread is called when this instance gets the link: what was read since it had
// it last, if ever, it has not learned of. It is safe for concurrent use.
func (b *Backend) ForgetUnread() { b.unread.clear() }

// count enters how many messages are unread. Where nobody can say, while no instance has
// the link, the conversation begins at one and nothing is said of the others.
func (b *Backend) count(ctx context.Context, n *decide.Notice, message string, at time.Time) {
	m := &UnreadMessage{User: n.Recipient, With: n.Conversation, Key: message, Time: at}
	if b.shared == nil {
		n.Count, n.Total = b.CountUnread(m)
	} else if count, total, ok := b.shared.Add(ctx, m); ok {
		n.Count, n.Total = count, total
	} else {
		n.Count, n.Total = 1, 0
	}
}

// UnreadMessage is a message that somebody has not read.
type UnreadMessage struct {
	User jid.JID   `json:"user"`
	With jid.JID   `json:"with"` // the other side
	Key  string    `json:"key"`  // the same for all events of the message
	Time time.Time `json:"time"` // of the event
}

type unreadUser struct {
	total         int
	conversations map[jid.JID]*conversation
}

type conversation struct {
	count int
	// known are the digests of the latest messages' keys. Several events and attempts
	// bring a message, and others of the conversation may come in between: a queue that a
	// session has not acknowledged is stored as a whole when the session ends.
	known []uint64
}

// enters notes a message and reports whether it is a new one.
func (c *conversation) enters(key string) bool {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // a hash takes everything
	digest := h.Sum64()
	if slices.Contains(c.known, digest) {
		return false
	}
	if len(c.known) == unreadKnown {
		c.known = slices.Delete(c.known, 0, 1)
	}
	c.known = append(c.known, digest)
	return true
}

func newUnread() *unread {
	users, _ := simplelru.NewLRU[jid.JID, *unreadUser](unreadUsers, nil) // it fails for no size but one below 1
	return &unread{users: users, marks: marks{seed: maphash.MakeSeed()}}
}

// add counts a message, once, and returns how many there are in its conversation and in
// all. One that was read before it came to be counted counts for itself alone.
func (u *unread) add(user, with jid.JID, key string, at time.Time) (count, total int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	of, ok := u.users.Get(user)
	if late := u.marks.since(user, "", at) || u.marks.since(user, with, at); late {
		count, total = 1, 1
		if ok {
			total += of.total
			if c := of.conversations[with]; c != nil {
				count += c.count
			}
		}
		return count, total
	}
	if !ok {
		of = &unreadUser{conversations: make(map[jid.JID]*conversation)}
		u.users.Add(own(user), of)
	}
	c := of.conversations[with]
	if c == nil {
		c = &conversation{}
		if len(of.conversations) < unreadConversations {
			of.conversations[own(with)] = c
		}
	}
	if c.enters(key) {
		c.count++
		of.total++
	}
	return c.count, of.total
}

// read forgets the messages of one conversation up to that time.
func (u *unread) read(user, with jid.JID, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.marks.set(user, with, at)
	of, ok := u.users.Peek(user)
	if !ok {
		return
	}
	if c := of.conversations[with]; c != nil {
		of.total -= c.count
		delete(of.conversations, with)
	}
}

// back forgets all messages of a user up to that time.
func (u *unread) back(user jid.JID, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.marks.set(user, "", at)
	u.users.Remove(user)
}

// clear forgets everything.
func (u *unread) clear() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.users.Purge()
}

// marks say up to when messages were read. Who is notified of a message learns it from
// the outbox, and so later, by a moment or by an outage, than what was read is learned of
// from the feed: without them a message from before a user was there would count after he has
// gone again. Users share the places, so that a message may pass for read since somebody
// else came while it was on its way: then the next one counts one less.
type marks struct {
	seed   maphash.Seed
	places [markPlaces]int64 // Unix time in milliseconds
}

func (m *marks) place(user, with jid.JID) *int64 {
	sum := maphash.String(m.seed, string(user))
	if with != "" {
		sum ^= bits.RotateLeft64(maphash.String(m.seed, string(with)), 1)
	}
	return &m.places[sum%markPlaces]
}

func (m *marks) set(user, with jid.JID, at time.Time) {
	*m.place(user, with) = at.UnixMilli()
}

// since reports whether messages of that time were read.
func (m *marks) since(user, with jid.JID, at time.Time) bool {
	return at.UnixMilli() <= *m.place(user, with)
}

// own copies a JID that is a part of an event, which would live as long otherwise.
func own(j jid.JID) jid.JID { return jid.JID(strings.Clone(string(j))) }
