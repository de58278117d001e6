// Package trace remembers, in memory, what became of the last events, and which stanzas made
// no event, so that an operator can ask.
package trace

import (
	"strings"
	"sync"
	"time"

	"eventpusher/event"
)

// How much is remembered.
const (
	MaxEvents = 2000
	MaxPassed = 1000
	// maxText bounds packet and body of an event that are remembered. Of a larger event all
	// but these is.
	maxText = 8 << 10
	// maxAttempts bounds how many failed attempts of one event at one destination are; they
	// are the first one and the last ones.
	maxAttempts = 10
	maxError    = 300 // bytes
)

// Fate is what has become of an event before it came to any destination.
type Fate string

// The fates.
const (
	Kept        Fate = "kept"         // the outbox has it, or is about to
	Dropped     Fate = "dropped"      // a filter has dropped it
	Failed      Fate = "failed"       // a filter has failed, and the event is dropped for it
	Dead        Fate = "dead letter"  // a filter has failed, or the stanza cannot be read
	Unwanted    Fate = "unwanted"     // no destination wants it
	NotAccepted Fate = "not accepted" // the outbox has not taken it
)

// State is what has become of an event at one destination.
type State string

// The states. All but the first four are final.
const (
	Waiting     State = "waiting"   // for its first attempt, or because the destination pauses
	Retrying    State = "retrying"  // attempts have failed, and it is tried again
	Parked      State = "parked"    // as Retrying, in the queue of conversations that keep failing
	Unknown     State = "unknown"   // it does not wait any more, and was not seen to leave
	Delivered   State = "delivered" //
	Buried      State = "dead letter"
	Declined    State = "declined" // the destination's when says no
	WhenFailed  State = "when failed"
	GivenUp     State = "given up" // the outbox was full
	NotSelected State = "not selected"
)

// Event is what is remembered of an event.
type Event struct {
	Number uint64      `json:"number"` // grows from event to event, from 1
	Event  event.Event `json:"event"`
	Cut    bool        `json:"cut,omitempty"` // packet and body are left out, since they are large
	Came   time.Time   `json:"came"`          // when it came to the filters
	Fate   Fate        `json:"fate"`
	// Filters are the names of all filters, in their order; By is the one that has decided
	// unless all have kept the event. Error says why it has failed.
	Filters      []string   `json:"filters,omitempty"`
	By           string     `json:"by,omitempty"`
	Error        string     `json:"error,omitempty"`
	Destinations []Delivery `json:"destinations,omitempty"`
}

// Delivery is what is remembered of an event at one destination.
type Delivery struct {
	Destination string    `json:"destination"`
	State       State     `json:"state"`
	Time        time.Time `json:"time"` // of State
	Tries       int       `json:"tries,omitempty"`
	Attempts    []Attempt `json:"attempts,omitempty"` // those that failed
}

// Attempt is one failed attempt.
type Attempt struct {
	Time  time.Time `json:"time"`
	Error string    `json:"error"`
}

// Passed is a stanza that made no event.
type Passed struct {
	Time     time.Time `json:"time"`
	StanzaID string    `json:"stanza_id"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	Feed     string    `json:"feed"`
	Why      string    `json:"why"`
}

// Recorder remembers. All its methods are safe for concurrent use, and do nothing if it is
// nil.
type Recorder struct {
	mu      sync.Mutex
	ring    []record       // by number
	last    uint64         // the number of the last event
	byID    map[uint64]int // places in ring
	passed  []Passed
	passes  int
	arrived chan struct{} // closed when there is a new event; nil if nobody waits
}

// record is an Event as it is kept: with few bytes, since each event and each delivery writes
// one.
type record struct {
	event      *event.Event
	cut        bool
	fate       Fate
	filters    []string
	verdict    *verdict
	came       int64 // nanoseconds since 1970
	deliveries []delivery
}

// verdict is what the filter has said that has decided.
type verdict struct{ by, err string }

type delivery struct {
	destination string
	time        int64
	state       State
	tries       int32
	attempts    []Attempt
}

// New returns a Recorder.
func New() *Recorder {
	return &Recorder{ring: make([]record, 0, MaxEvents), byID: make(map[uint64]int, MaxEvents)}
}

// key tells IDs apart.
func key(id string) (k uint64) {
	for ; len(id) >= 8; id = id[8:] {
		k = k*prime ^ load(id)
	}
	for i := range len(id) {
		k = k*prime ^ uint64(id[i])
	}
	return k
}

const prime = 1099511628211

// load reads 8 bytes; the compiler makes one instruction of it.
func load(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// Arrival is an event that has just come.
type Arrival struct {
	Event *event.Event // kept as it is: nobody changes it any more
	Came  time.Time
	Fate  Fate
	// Filters are all filters, By and Error what the one has said that has decided. The
	// slice is kept.
	Filters   []string
	By, Error string
	// Destinations say who gets it, and why others do not. The slice is the caller's.
	Destinations []Delivery
}

// Add remembers an event.
func (r *Recorder) Add(a *Arrival) {
	if r == nil {
		return
	}
	e, cut := a.Event, len(a.Event.Packet)+len(a.Event.Body) > maxText
	if cut || e.Packet == "" { // what is small may be a part of something large
		e = apart(e, cut)
	}
	var v *verdict
	if a.By != "" || a.Error != "" {
		v = &verdict{a.By, a.Error}
	}
	k := key(e.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	i := int(r.last % MaxEvents)
	r.last++
	if i == len(r.ring) {
		r.ring = append(r.ring, record{})
	}
	to := &r.ring[i]
	if to.event != nil {
		if old := key(to.event.ID); r.byID[old] == i {
			delete(r.byID, old)
		}
	}
	clear(to.deliveries)
	*to = record{e, cut, a.Fate, a.Filters, v, a.Came.UnixNano(), to.deliveries[:0]}
	for _, d := range a.Destinations {
		to.deliveries = append(to.deliveries, delivery{d.Destination, to.came, d.State, 0, d.Attempts})
	}
	r.byID[k] = i
	if r.arrived != nil {
		close(r.arrived)
		r.arrived = nil
	}
}

// apart copies an event so that it keeps nothing of the stanza in memory; without its texts if
// they are to be cut.
func apart(e *event.Event, cut bool) *event.Event {
	c := *e
	if cut {
		c.Packet, c.Body, c.Metadata = "", "", nil
	}
	c.ID, c.Type, c.Body, c.Host, c.Dialect = strings.Clone(c.ID), strings.Clone(c.Type), strings.Clone(c.Body), strings.Clone(c.Host), strings.Clone(c.Dialect)
	c.StanzaID, c.Replaces = shorten(c.StanzaID), shorten(c.Replaces)
	for _, j := range []*string{(*string)(&c.From), (*string)(&c.To), (*string)(&c.User), (*string)(&c.Room)} {
		*j = strings.Clone(*j)
	}
	return &c
}

// HideTexts leaves out what somebody has written, also what filters may have made of it.
func (e *Event) HideTexts() {
	e.Event.Body, e.Event.Packet = "", ""
	var rest event.Metadata
	for k, v := range e.Event.Metadata {
		if _, text := v.(string); !text {
			if rest == nil {
				rest = make(event.Metadata)
			}
			rest[k] = v
		}
	}
	e.Event.Metadata = rest
}

func shorten(s string) string {
	if len(s) > maxError {
		return strings.ToValidUTF8(s[:maxError], "") + "…"
	}
	return strings.Clone(s)
}

// Settled is what has become of one event in one call of a destination.
type Settled struct {
	ID    string
	State State
	Tries int
	Err   error // nil if there was no attempt, or it was taken
}

// Settle notes what has become of events at a destination. next returns false after the last
// one; it must not block.
func (r *Recorder) Settle(destination string, at time.Time, next func() (Settled, bool)) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for s, ok := next(); ok; s, ok = next() {
		if e := r.find(s.ID); e != nil {
			e.settle(destination, at, &s)
		}
	}
}

// find returns the last record of an ID, nil if there is none. r.mu is held.
func (r *Recorder) find(id string) *record {
	if i, ok := r.byID[key(id)]; ok && r.ring[i].event.ID == id {
		return &r.ring[i]
	}
	return nil
}

func (e *record) settle(destination string, at time.Time, s *Settled) {
	d := e.delivery(destination)
	d.state, d.time, d.tries = s.State, at.UnixNano(), max(int32(s.Tries), d.tries)
	if s.Err == nil {
		return
	}
	if len(d.attempts) == maxAttempts {
		d.attempts = append(d.attempts[:1], d.attempts[2:]...)
	}
	d.attempts = append(d.attempts, Attempt{at, shorten(s.Err.Error())})
}

func (e *record) delivery(destination string) *delivery {
	for i := range e.deliveries {
		if e.deliveries[i].destination == destination {
			return &e.deliveries[i]
		}
	}
	e.deliveries = append(e.deliveries, delivery{destination: destination})
	return &e.deliveries[len(e.deliveries)-1]
}

// Refused notes that events were not accepted: their feed sends them again, or they are lost.
func (r *Recorder) Refused(next func() (id string, ok bool)) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, ok := next(); ok; id, ok = next() {
		if e := r.find(id); e != nil && e.fate == Kept {
			e.fate, e.deliveries = NotAccepted, e.deliveries[:0]
		}
	}
}

// Pass remembers a stanza that made no event. Stanzas without an ID are not remembered:
// nobody could ask for them.
func (r *Recorder) Pass(p Passed) {
	if r == nil || p.StanzaID == "" {
		return
	}
	for _, text := range []*string{&p.StanzaID, &p.From, &p.To} {
		*text = shorten(*text)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.passed) < MaxPassed {
		r.passed = append(r.passed, p)
	} else {
		r.passed[r.passes%MaxPassed] = p
	}
	r.passes++
}

// Find returns what is remembered of an event or a stanza, oldest first.
func (r *Recorder) Find(id string) (events []Event, passed []Passed) {
	if r == nil || id == "" {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := r.oldest(); n <= r.last; n++ {
		if e := r.at(n); e.event.ID == id || e.event.StanzaID == id {
			events = append(events, e.public(n))
		}
	}
	for i := range r.passed {
		if p := r.passed[(r.passes+i)%len(r.passed)]; p.StanzaID == id {
			passed = append(passed, p)
		}
	}
	return events, passed
}

// oldest is the number of the oldest event that is remembered. r.mu is held.
func (r *Recorder) oldest() uint64 { return r.last - uint64(len(r.ring)) + 1 }

func (r *Recorder) at(number uint64) *record { return &r.ring[(number-1)%MaxEvents] }

// public returns a copy that shares nothing that changes.
func (e *record) public(number uint64) Event {
	out := Event{Number: number, Event: *e.event, Cut: e.cut, Came: time.Unix(0, e.came), Fate: e.fate, Filters: e.filters}
	if e.verdict != nil {
		out.By, out.Error = e.verdict.by, e.verdict.err
	}
	for _, d := range e.deliveries {
		out.Destinations = append(out.Destinations, Delivery{
			d.destination, d.state, time.Unix(0, d.time), int(d.tries), append([]Attempt(nil), d.attempts...),
		})
	}
	return out
}

// After returns the events whose number is above a number, oldest first, at most so many, and
// a channel that is closed when there are more than those that were there.
func (r *Recorder) After(number uint64, most int) (events []Event, more <-chan struct{}) {
	if r == nil {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := max(number+1, r.oldest()); n <= r.last && len(events) < most; n++ {
		events = append(events, r.at(n).public(n))
	}
	if r.arrived == nil {
		r.arrived = make(chan struct{})
	}
	return events, r.arrived
}

// Last returns the number of the last event, 0 if none has come.
func (r *Recorder) Last() uint64 {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}
