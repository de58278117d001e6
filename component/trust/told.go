package trust

import (
	"hash/maphash"
	"strings"
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

// told remembers the messages that other feeds have reported lately, so that none counts
// again when the event-feed reports it. A module reports all that has happened since it was
// loaded, or since the link was down. So when it takes the place of another feed, its first
// messages may be known. Presences need no such memory: a session comes online once.
type told struct {
	seed maphash.Seed
	lru  *simplelru.LRU[uint64, telling]
}

// telling is when a message was received, and the place of the report about it in the
// event-feed, zero if there was none yet. A report can come again.
type telling struct {
	at    time.Time
	epoch string
	seq   uint64
}

// message is what two reports of one message have in common.
type message struct {
	from, to       jid.JID
	kind, id, body string
}

func newTold() *told {
	lru, _ := simplelru.NewLRU[uint64, telling](toldKept, nil) // it fails for no size but one below 1
	return &told{maphash.MakeSeed(), lru}
}

func (t *told) key(s *stanza.Stanza) uint64 {
	return maphash.Comparable(t.seed, message{s.From, s.To, s.Type, s.ID, s.Body})
}

func (t *told) add(s *stanza.Stanza, now time.Time) { t.lru.Add(t.key(s), telling{at: now}) }

// before reports whether the message that a report of the event-feed is about was reported
// by another feed. It counts for one report.
func (t *told) before(s *stanza.Stanza, r *stanza.Report, now time.Time) bool {
	if t.lru.Len() == 0 {
		return false
	}
	at, within := r.At, toldWithin
	if at.IsZero() {
		at = now
	}
	if s.ID == "" {
		within = toldWithinNoID
	}
	key := t.key(s)
	told, ok := t.lru.Peek(key)
	if !ok || at.Sub(told.at).Abs() >= within || told.seq != 0 && (told.epoch != r.Epoch || told.seq != r.Seq) {
		return false
	}
	t.lru.Add(key, telling{told.at, strings.Clone(r.Epoch), r.Seq}) // not the stanza's memory
	return true
}
