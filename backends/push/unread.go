package push

import (
	"hash/fnv"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/internal/jid"
)

// Bounds of what is counted.
const (
	unreadUsers         = 1 << 16
	unreadConversations = 256 // of one user
	unreadKnown         = 64  // messages of one conversation
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
	return &unread{users: users}
}

// add counts a message, once, and returns how many there are in its conversation and in all.
func (u *unread) add(user, with jid.JID, key string) (count, total int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	of, ok := u.users.Get(user)
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

// read forgets the messages of one conversation.
func (u *unread) read(user, with jid.JID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	of, ok := u.users.Peek(user)
	if !ok {
		return
	}
	if c := of.conversations[with]; c != nil {
		of.total -= c.count
		delete(of.conversations, with)
	}
}

// back forgets all messages of a user.
func (u *unread) back(user jid.JID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.users.Remove(user)
}

// own copies a JID that is a part of an event, which would live as long otherwise.
func own(j jid.JID) jid.JID { return jid.JID(strings.Clone(string(j))) }
