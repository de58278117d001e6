package trust

import (
	"hash/maphash"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

const (
	// toldKept is how many messages are remembered, of all hosts.
	toldKept = 4096
	// toldWithin is how far apart two reports of one message may lie. For one without an
	// id it is shorter: people and devices send the same words again.
	toldWithin, toldWithinNoID = time.Minute, 2 * time.Second
)

// told remembers the messages that other feeds have reported lately, each until the
// event-feed has reported it too. A module reports all that has happened since it was
// loaded, or since the link was down. So when it takes the place of another feed, its first
// messages may be known. Presences need no such memory: a session comes online once.
type told struct {
	seed maphash.Seed
	at   *simplelru.LRU[uint64, time.Time] // when the message was received
}

// message is what two reports of one message have in common.
type message struct {
	from, to       jid.JID
	kind, id, body string
}

func newTold() *told {
	at, _ := simplelru.NewLRU[uint64, time.Time](toldKept, nil) // it fails for no size but one below 1
	return &told{maphash.MakeSeed(), at}
}

func (t *told) key(s *stanza.Stanza) uint64 {
	return maphash.Comparable(t.seed, message{s.From, s.To, s.Type, s.ID, s.Body})
}

func (t *told) add(s *stanza.Stanza, now time.Time) { t.at.Add(t.key(s), now) }

// take reports whether a message that was sent or received at this time by the event-feed
// was reported before, and forgets it.
func (t *told) take(s *stanza.Stanza, at time.Time) bool {
	if t.at.Len() == 0 {
		return false
	}
	key := t.key(s)
	before, ok := t.at.Peek(key)
	within := toldWithin
	if s.ID == "" {
		within = toldWithinNoID
	}
	return ok && at.Sub(before).Abs() < within && t.at.Remove(key)
}
