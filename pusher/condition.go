package pusher

import (
	"fmt"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
)

// reasonWhen is the reason of dead letters whose backend's condition failed.
const reasonWhen = "when"

// gets reports whether the backend of d is to be handed e. An event whose condition
// fails becomes a dead letter of the backend, so that nothing is lost and nothing leaves
// that might have been held back.
func (p *Pusher) gets(d *dispatcher, e *event.Event) bool {
	if !d.wants(e) {
		return false
	}
	if d.condition == nil || !filter.Conditional(e.Kind) {
		return true
	}
	yes, err := d.condition.Holds(e)
	if !yes && d.declined != nil {
		d.declined.Declined(e, err)
	}
	switch {
	case err != nil:
		d.metrics.when("error").Inc()
		if n, ok := d.whenLog.allow(time.Now(), time.Minute); ok {
			d.log.Error("the condition of the backend fails: the event becomes a dead letter", "kind", e.Kind.String(), "err", err, "since_last_line", n)
		}
		kept := new(event.Event)
		*kept = *e
		p.traced.Destinations = append(p.traced.Destinations, trace.Delivery{
			Destination: d.name, State: trace.WhenFailed, Time: p.now, Attempts: []trace.Attempt{{Time: p.now, Error: err.Error()}},
		})
		p.letters = append(p.letters, outbox.DeadLetter{Event: kept, Backend: d.name, Reason: reasonWhen, Err: fmt.Sprintf("when: %v", err), Accepted: p.now, Died: p.now})
		return false
	case !yes:
		d.metrics.when("drop").Inc()
		p.traced.Destinations = append(p.traced.Destinations, trace.Delivery{Destination: d.name, State: trace.Declined, Time: p.now})
		return false
	}
	d.metrics.when("keep").Inc()
	return true
}
