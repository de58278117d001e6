package push

import (
	"cmp"
	"context"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"eventpusher/backends/push/registration"
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
	// Outcome is one of the reasons of Counts.
	Outcome string `json:"outcome"`
	// Service and Node name the registration that it was about, cut off at 64 bytes;
	// they are empty where it was about none, or all.
	Service string `json:"service,omitempty"`
	Node    string `json:"node,omitempty"`
	// Count is how often the same was decided, such as at each attempt. An instance
	// from before there was a count leaves it 0.
	Count int `json:"count"`
}

// target is the registration and the message that a decision is about.
type target struct {
	service, node string
	message       string // the key of the notice: several events are of one message
}

// of returns the target of telling a service.
func (sum *Summary) of(s *registration.Service) target {
	return target{string(s.PubSub), s.Node, sum.Notice.Key}
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
	kept *[historyDecisions]remembered
}

type remembered struct {
	number        uint64 // grows from decision to decision; 0: there is none
	user          uint64 // the hash of the JID
	message       uint64 // the hash of its key, 0 without
	at            int64  // Unix time in microseconds
	count         int
	service, node string
	outcome       outcome
	id            [historyID]byte
	length        uint8 // of the id
}

func newHistory() *history { return &history{seed: maphash.MakeSeed()} }

func (h *history) place(user jid.JID) (*place, uint64) {
	sum := maphash.String(h.seed, string(user))
	return &h.places[sum%historyPlaces], sum
}

// add remembers a decision. One that repeats another is counted with it. That a service
// knows of a message says nothing new where its being told is remembered.
func (h *history) add(user jid.JID, eventID string, o outcome, of target, at time.Time) {
	var message uint64
	if of.message != "" {
		message = maphash.String(h.seed, of.message)
	}
	service, node := clip(of.service, historyName), clip(of.node, historyName)
	p, sum := h.place(user)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil {
		p.kept = new([historyDecisions]remembered)
	}
	oldest := &p.kept[0]
	for i := range p.kept {
		r := &p.kept[i]
		if r.number < oldest.number {
			oldest = r
		}
		if r.user != sum || r.service != service || r.node != node {
			continue
		}
		if r.outcome == o && string(r.id[:r.length]) == eventID[:min(len(eventID), historyID)] {
			p.last++
			r.number, r.at = p.last, at.UnixMicro()
			r.count++
			return
		}
		if o == duplicate && message != 0 && r.message == message && r.outcome.settled() {
			return
		}
	}
	p.last++
	*oldest = remembered{
		number: p.last, user: sum, message: message, at: at.UnixMicro(), count: 1,
		service: strings.Clone(service), node: strings.Clone(node), outcome: o,
	}
	oldest.length = uint8(copy(oldest.id[:], eventID))
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
	var found []*remembered
	for i := range p.kept {
		if r := &p.kept[i]; r.number > 0 && r.user == sum {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *remembered) int { return cmp.Compare(a.number, b.number) })
	for _, r := range found {
		list = append(list, Decision{
			Time: time.UnixMicro(r.at).UTC(), EventID: string(r.id[:r.length]), Outcome: string(r.outcome),
			Service: r.service, Node: r.node, Count: r.count,
		})
	}
	return list
}

// note records an outcome that is about no registration, or all.
func (b *Backend) note(user jid.JID, eventID string, o outcome) { b.noteOf(user, eventID, o, target{}) }

// noteOf records an outcome.
func (b *Backend) noteOf(user jid.JID, eventID string, o outcome, of target) {
	b.tally.add(o)
	b.history.add(user, eventID, o, of, b.o.Now())
	if ctx := context.Background(); b.o.Log.Enabled(ctx, slog.LevelDebug) {
		b.o.Log.LogAttrs(ctx, slog.LevelDebug, "push: decided", slog.String("user", string(user)), slog.String("event", eventID), slog.String("outcome", string(o)))
	}
}

// Decisions lists what was decided lately about messages to a user, oldest first. It
// is safe for concurrent use, as Explain is.
func (b *Backend) Decisions(user jid.JID) []Decision { return b.history.list(user) }
