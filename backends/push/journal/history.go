package journal

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"eventpusher/internal/jid"
)

// Bounds of what can be explained. Users share the places evenly, so that where
// fewer are written to than there are places, each has about all decisions of one.
const (
	historyPlaces    = 4096
	historyDecisions = 16 // in a place
	historyID        = 32 // bytes of an event's id
	historyName      = 64 // bytes of the name of a service or node
)

// Decision is what was decided about one message to a user, once or several times.
type Decision struct {
	Time    time.Time `json:"time"` // the latest
	EventID string    `json:"event_id"`
	// Outcome is one of those of Counts.
	Outcome string `json:"outcome"`
	// Service and Node name the registration that it was about, cut off at 64 bytes;
	// they are empty where it was about none, or all.
	Service string `json:"service,omitempty"`
	Node    string `json:"node,omitempty"`
	// Count is how often the same was decided, such as at each attempt. An instance
	// from before there was a count leaves it 0.
	Count int `json:"count"`
}

// Target is the registration and the message that a decision is about.
type Target struct {
	Service, Node string
	Message       string // several events are of one message
}

// history remembers the latest decisions for the users latest decided about. It
// is on the way of each message that comes in, so that it holds no pointer into events
// and allocates nothing but its places, about 2 kB each, when they are first
// used, and the names of registrations.
type history struct {
	seed   maphash.Seed
	places [historyPlaces]place
}

// place holds the decisions that were last added or repeated.
type place struct {
	mu   sync.Mutex
	last uint64 // number of the latest
	kept *kept
}

// kept has apart what is looked at for each message: the rest is eight times the
// memory.
type kept struct {
	sums    [historyDecisions]uint64 // the hash of all that a repetition repeats
	numbers [historyDecisions]uint64 // grow from decision to decision; 0: there is none
	of      [historyDecisions]remembered
}

type remembered struct {
	user          uint64 // the hash of the JID
	message       uint64 // the hash of its key
	at            int64  // Unix time in microseconds
	count         int
	service, node string
	outcome       Outcome
	id            [historyID]byte
	length        uint8 // of the id
}

func newHistory() *history { return &history{seed: maphash.MakeSeed()} }

func (h *history) place(user jid.JID) (*place, uint64) {
	sum := maphash.String(h.seed, string(user))
	return &h.places[sum%historyPlaces], sum
}

// mix returns the hash of what sum is the hash of, and s.
func (h *history) mix(sum uint64, s string) uint64 {
	return bits.RotateLeft64(sum, 21) ^ maphash.String(h.seed, s)
}

// add remembers a decision. One that repeats another is counted with it. What became of a
// notification takes the place of its being queued. That a service knows of a message says
// nothing new where its being told is remembered.
func (h *history) add(user jid.JID, eventID string, o Outcome, of Target, at time.Time) {
	p, owner := h.place(user)
	sum, before := h.mix(h.mix(owner, eventID), string(o)), h.mix(h.mix(owner, eventID), string(Queued))
	var message uint64
	if of != (Target{}) {
		of.Service, of.Node = clip(of.Service, historyName), clip(of.Node, historyName)
		sum, message = h.mix(h.mix(sum, of.Service), of.Node), maphash.String(h.seed, of.Message)
		before = h.mix(h.mix(before, of.Service), of.Node)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil {
		p.kept = new(kept)
	}
	oldest, waits := 0, -1
	for i, number := range p.kept.numbers {
		if number > 0 && p.kept.sums[i] == sum {
			p.last++
			p.kept.numbers[i], p.kept.of[i].at = p.last, at.UnixMicro()
			p.kept.of[i].count++
			return
		}
		if number > 0 && p.kept.sums[i] == before {
			waits = i
		}
		if number < p.kept.numbers[oldest] {
			oldest = i
		}
	}
	if waits >= 0 { // what became of it stands in place of its having waited
		oldest, message = waits, p.kept.of[waits].message
	}
	if o == Duplicate && of.Message != "" && p.kept.told(owner, message, of) {
		return
	}
	p.last++
	p.kept.numbers[oldest], p.kept.sums[oldest] = p.last, sum
	r := &p.kept.of[oldest]
	*r = remembered{
		user: owner, message: message, at: at.UnixMicro(), count: 1,
		service: strings.Clone(of.Service), node: strings.Clone(of.Node), outcome: o,
	}
	r.length = uint8(copy(r.id[:], eventID))
}

// told reports whether it is remembered what became of telling a registration of a message.
func (k *kept) told(user, message uint64, of Target) bool {
	return slices.ContainsFunc(k.of[:], func(r remembered) bool {
		return r.user == user && r.message == message && r.service == of.Service && r.node == of.Node && r.outcome.settled()
	})
}

// clip returns the beginning of a text, of at most so many bytes and in whole characters.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// list returns the decisions for a user, oldest first.
func (h *history) list(user jid.JID) (list []Decision) {
	p, sum := h.place(user)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil {
		return nil
	}
	var found []int
	for i, number := range p.kept.numbers {
		if number > 0 && p.kept.of[i].user == sum {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b int) int { return cmp.Compare(p.kept.numbers[a], p.kept.numbers[b]) })
	for _, i := range found {
		r := &p.kept.of[i]
		list = append(list, Decision{
			Time: time.UnixMicro(r.at).UTC(), EventID: string(r.id[:r.length]), Outcome: string(r.outcome),
			Service: r.service, Node: r.node, Count: r.count,
		})
	}
	return list
}
