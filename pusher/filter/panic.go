package filter

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Panic is a panic of a filter or a backend, as an error. What it panicked with is only
// shown if it comes from the runtime, as anything else may hold content.
type Panic struct {
	text  string
	Stack string
}

// NewPanic makes one of what recover has returned. A *Panic that was passed on from another
// goroutine stays as it is, with the stack of that goroutine.
func NewPanic(p any) *Panic {
	if passed, ok := p.(*Panic); ok {
		return passed
	}
	e := &Panic{text: fmt.Sprintf("panic (%T)", p), Stack: string(debug.Stack())}
	if r, ok := p.(runtime.Error); ok {
		e.text = "panic: " + r.Error()
	}
	return e
}

// Error implements error.
func (e *Panic) Error() string { return e.text }
