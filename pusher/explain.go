package pusher

import (
	"slices"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
)

// Explanation is what is known of an event, or of a stanza.
type Explanation struct {
	// Events are those that were remembered, oldest first: one stanza can make several.
	Events []trace.Event `json:"events,omitempty"`
	// Passed are stanzas that made no event.
	Passed []trace.Passed `json:"passed,omitempty"`
	// Letters are the dead letters, without the events' texts.
	Letters []outbox.DeadLetter `json:"letters,omitempty"`
	// Remembered is the time of the oldest event that is remembered; zero if there is none.
	Remembered time.Time `json:"remembered,omitzero"`
}

// settleTime is how long after it came an event may be on its way to the outbox.
const settleTime = 2 * time.Second

// Explain says what is known of an event, by its ID, or of a stanza, by the ID that its client
// gave. Events that came long ago, or before the start, are known by where they wait and by their
// dead letters alone. It is safe for concurrent use.
func (p *Pusher) Explain(id string) (x Explanation, err error) {
	x.Events, x.Passed = p.trace.Find(id)
	now := time.Now()
	for i := range x.Events {
		p.complete(&x.Events[i], now)
	}
	p.addWaiting(&x, id)
	if first, _ := p.trace.After(0, 1); len(first) > 0 {
		x.Remembered = first[0].Came
	}
	x.Letters, err = LettersOf(p.box.DeadLetters().List, id)
	for _, d := range x.Letters {
		for i := range x.Events {
			buried(&x.Events[i], &d)
		}
	}
	return x, err
}

// addWaiting adds what waits and is not remembered, such as events from before a restart.
func (p *Pusher) addWaiting(x *Explanation, id string) {
	remembered := len(x.Events)
	for name, r := range p.readers() {
		for _, f := range r.Find(func(e *event.Event) bool { return e.ID == id || e.StanzaID == id }) {
			i := slices.IndexFunc(x.Events, func(e trace.Event) bool { return e.Event.ID == f.Event.ID })
			if i >= 0 && i < remembered {
				continue
			}
			if i < 0 {
				i = len(x.Events)
				x.Events = append(x.Events, trace.Event{Event: *f.Event, Came: f.Accepted, Fate: trace.Kept})
			}
			state := trace.Waiting
			switch {
			case f.Parked:
				state = trace.Parked
			case f.Attempts > 0:
				state = trace.Retrying
			}
			x.Events[i].Destinations = append(x.Events[i].Destinations, trace.Delivery{Destination: name, State: state, Time: f.Accepted, Tries: f.Attempts})
		}
	}
}

// LettersOf returns the dead letters of an event, by its ID, or of a stanza, without the
// events' texts. list reads dead letters.
func LettersOf(list func(outbox.LetterFilter) ([]outbox.DeadLetter, error), id string) (found []outbox.DeadLetter, err error) {
	for f := (outbox.LetterFilter{Limit: lettersAtOnce}); ; {
		page, err := list(f)
		if err != nil {
			return found, err
		}
		for _, d := range page {
			f.After = d.ID
			if d.Event != nil && (d.Event.ID == id || d.Event.StanzaID == id) {
				d.Event = withoutTexts(d.Event)
				found = append(found, d)
			}
		}
		if len(page) < lettersAtOnce {
			return found, nil
		}
	}
}

// buried notes that an event became a dead letter without a call, such as by its age.
func buried(e *trace.Event, d *outbox.DeadLetter) {
	for i := range e.Destinations {
		if one := &e.Destinations[i]; one.Destination == d.Backend && one.State == trace.Unknown && e.Event.ID == d.Event.ID {
			one.State, one.Time = trace.Buried, d.Died
		}
	}
}

// complete says of each destination what has become of the event there.
func (p *Pusher) complete(e *trace.Event, now time.Time) {
	if e.Fate != trace.Kept && e.Fate != trace.Unwanted {
		return
	}
	for _, d := range p.all() {
		found := false
		for i := range e.Destinations {
			if one := &e.Destinations[i]; one.Destination == d.name {
				found = true
				d.whereabouts(one, e.Came, now)
			}
		}
		if !found && !d.added.After(e.Came) {
			e.Destinations = append(e.Destinations, trace.Delivery{Destination: d.name, State: trace.NotSelected, Time: e.Came})
		}
	}
}

// whereabouts corrects what is remembered of an event that left without a call.
func (d *dispatcher) whereabouts(one *trace.Delivery, came, now time.Time) {
	if one.State != trace.Waiting && one.State != trace.Retrying && one.State != trace.Parked || now.Sub(came) < settleTime {
		return
	}
	s := d.reader.Stats()
	switch waits := s.Waiting+s.InFlight > 0; {
	case waits && !s.Oldest.After(came.Add(settleTime)):
	case s.Shed > 0:
		one.State = trace.GivenUp
	default:
		one.State = trace.Unknown
	}
}
