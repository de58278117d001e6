package push

import (
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/internal/jid"
)

// Bounds of what is counted.
const (
	unreadUsers         = 1 << 16
	unreadConversations = 256 // of one user
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
	last  string // key of the latest message, which several events and attempts may bring
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
	if c.last != key {
		c.count++
		of.total++
		c.last = key
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
