package filter

import (
	"errors"
	"sync"

	"eventpusher/event"
)

// CompileValue compiles the expression src of a value that a destination sends with an
// event, such as a routing key. It sees what [[filter]] sees and the metadata that filters
// added. The function returns a string, bool, int64 or finite float64, and is safe for
// concurrent use. Its errors hold no content of the event.
func CompileValue(src string) (func(e *event.Event) (any, error), error) {
	p, fault := compileExpression(src, false)
	if fault != nil {
		return nil, errors.New(fault.Error() + "; " + fault.remedy)
	}
	v := &value{program: p}
	return v.of, nil
}

// value is an expression with the lock that its machine needs.
type value struct {
	mu      sync.Mutex
	program *program
	env     environment
}

func (v *value) of(e *event.Event) (result any, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer func() {
		v.env = environment{} // the event's buffer must not outlive it here
		if p := recover(); p != nil {
			err = NewPanic(p)
		}
	}()
	v.env.load(e)
	if result, err = v.program.run(&v.env); err != nil {
		return nil, err
	}
	plain, fault := plainValue(result)
	if fault != nil {
		return nil, fault
	}
	return plain, nil
}
