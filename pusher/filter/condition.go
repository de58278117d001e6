package filter

import (
	"eventpusher/config"
	"eventpusher/event"
)

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

// Holds evaluates the condition. Errors hold no content of the event.
func (c *Condition) Holds(e *event.Event) (yes bool, err error) {
	defer func() {
		c.env = environment{} // the event's buffer must not outlive it here
		if p := recover(); p != nil {
			err = NewPanic(p)
		}
	}()
	c.env.load(e)
	return c.when.truth(&c.env)
}

// Conditional reports whether a condition is asked about an event. The others are
// not about what is said or who is there: a server that has decided itself to notify
// a device, and what has to be cleaned up.
func Conditional(k event.Kind) bool {
	return k != event.Notification && k != event.Removed
}
