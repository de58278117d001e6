// Package unread counts for each user who is offline the messages of each conversation
// since the user was last there: MongooseIM asks mod_inbox for it, which no other server
// has. Coming online, and writing in a conversation, is taken for having read.
package unread

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/internal/jid"
)

// Bounds of what is counted.
const (
	usersKept         = 1 << 16
	conversationsKept = 256 // of one user
	messagesKept      = 64  // messages of one conversation
	markPlaces        = 1 << 16
)

// Counts are the numbers of unread messages. They are best effort: after a restart or an
// eviction a conversation starts again at 1. They are safe for concurrent use.
type Counts struct {
	mu    sync.Mutex
	users *simplelru.LRU[jid.JID, *user]
	marks marks
}

// Message is a message that somebody has not read.
type Message struct {
	User jid.JID   `json:"user"`
	With jid.JID   `json:"with"` // the other side
	Key  string    `json:"key"`  // the same for all events of the message
	Time time.Time `json:"time"` // of the event
}

// user is what is counted for one.
type user struct {
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

// enters notes a message by the digest of its key and reports whether it is a new one.
func (c *conversation) enters(digest uint64) bool {
	if slices.Contains(c.known, digest) {
		return false
	}
	if len(c.known) == messagesKept {
		c.known = slices.Delete(c.known, 0, 1)
	}
	c.known = append(c.known, digest)
	return true
}

// New returns Counts that know nothing yet.
func New() *Counts {
	users, _ := simplelru.NewLRU[jid.JID, *user](usersKept, nil) // it fails for no size but one below 1
	return &Counts{users: users, marks: marks{seed: maphash.MakeSeed()}}
}

// Add counts a message, once, and returns how many there are in its conversation and in
// all. One that was read before it came to be counted counts for itself alone.
func (c *Counts) Add(m *Message) (count, total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of, ok := c.users.Get(m.User)
	if late := c.marks.since(m.User, "", m.Time) || c.marks.since(m.User, m.With, m.Time); late {
		count, total = 1, 1
		if ok {
			total += of.total
			if one := of.conversations[m.With]; one != nil {
				count += one.count
			}
		}
		return count, total
	}
	if !ok {
		of = &user{conversations: make(map[jid.JID]*conversation)}
		c.users.Add(own(m.User), of)
	}
	one := of.conversations[m.With]
	if one == nil {
		one = &conversation{}
		if len(of.conversations) < conversationsKept {
			of.conversations[own(m.With)] = one
		}
	}
	if one.enters(maphash.String(c.marks.seed, m.Key)) {
		one.count++
		of.total++
	}
	return one.count, of.total
}

// Read forgets the messages of one conversation up to that time.
func (c *Counts) Read(user, with jid.JID, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marks.set(user, with, at)
	of, ok := c.users.Peek(user)
	if !ok {
		return
	}
	if one := of.conversations[with]; one != nil {
		of.total -= one.count
		delete(of.conversations, with)
	}
}

// Back forgets all messages of a user up to that time.
func (c *Counts) Back(user jid.JID, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marks.set(user, "", at)
	c.users.Remove(user)
}

// Clear forgets everything.
func (c *Counts) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users.Purge()
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
