package pusher

import (
	"fmt"
	"time"

	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// reasonWhen is the reason of dead letters whose backend's condition failed.
const reasonWhen = "when"

// Condition is the compiled when of one backend: of the events that the backend
// wants, those that it gets. It is not safe for concurrent use; a Pusher asks it
// under its own lock.
type Condition struct {
	when *program
	env  environment
}

// CompileCondition compiles the expression src, which sees what [[filter]] sees and
// the metadata that filters added. Problems are about path; with one there is no
// Condition.
func CompileCondition(path, src string) (*Condition, []config.Problem) {
	p, err := compileExpression(src, true)
	if err != nil {
		return nil, []config.Problem{{Severity: config.Error, Path: path, Text: err.Error(), Remedy: err.remedy}}
	}
	return &Condition{when: p}, nil
}

// holds evaluates the condition. Errors hold no content of the event.
func (c *Condition) holds(e *event.Event) (yes bool, err error) {
	defer func() {
		c.env = environment{} // the event's buffer must not outlive it here
		if p := recover(); p != nil {
			err = newPanicError(p)
		}
	}()
	c.env.load(e)
	return c.when.truth(&c.env)
}

// conditional reports whether a condition is asked about an event. The others are
// not about what is said or who is there: a server that has decided itself to notify
// a device, and what has to be cleaned up.
func conditional(k event.Kind) bool {
	return k != event.Notification && k != event.Removed
}

// gets reports whether the backend of d is to be handed e. An event whose condition
// fails becomes a dead letter of the backend, so that nothing is lost and nothing leaves
// that might have been held back.
func (p *Pusher) gets(d *dispatcher, e *event.Event) bool {
	if !d.wants(e) {
		return false
	}
	if d.condition == nil || !conditional(e.Kind) {
		return true
	}
	yes, err := d.condition.holds(e)
	if !yes && d.declined != nil {
		d.declined.Declined(e, err)
	}
	switch {
	case err != nil:
		d.metrics.when("error").Inc()
		d.metrics.dead(reasonWhen).Inc()
		d.dead.Add(1)
		if n, ok := d.whenLog.allow(time.Now(), time.Minute); ok {
			d.log.Error("the condition of the backend fails: the event becomes a dead letter", "kind", e.Kind.String(), "err", err, "since_last_line", n)
		}
		kept := new(event.Event)
		*kept = *e
		now := time.Now()
		p.letters = append(p.letters, outbox.DeadLetter{Event: kept, Backend: d.name, Reason: reasonWhen, Err: fmt.Sprintf("when: %v", err), Accepted: now, Died: now})
		return false
	case !yes:
		d.metrics.when("drop").Inc()
		return false
	}
	d.metrics.when("keep").Inc()
	return true
}
