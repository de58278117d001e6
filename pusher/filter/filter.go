// Package filter decides what becomes of an event before any backend sees it: the chain
// of filters, and the language of their expressions and of the conditions (when).
package filter

import (
	"eventpusher/config"
	"eventpusher/event"
)

// BackendPriority is where MongooseIM's backends stand in the chain of its hook
// push_event (mod_event_pusher_rabbit.erl): a filter at this priority or above
// would run after the event has left, so it is refused.
const BackendPriority = 50

// DefaultFilterPriority is that of MongooseIM's sample filter.
const DefaultFilterPriority = 10

// Filter decides what becomes of an event before any backend sees it.
//
// Filters run in ascending order of priority, those of equal priority in the
// order they were configured (mongoose_hooks.erl).
type Filter interface {
	// Name identifies the filter in logs and metrics. It is unique in a chain.
	Name() string
	// Priority is between 1 and BackendPriority-1.
	Priority() int
	// Filter judges e, which it must not change. It is called by one goroutine at a
	// time, must not block and should take microseconds. e.Metadata is what the
	// filters before it added.
	Filter(e *event.Event) (Verdict, error)
}

// Judge is the method Filter of a Filter.
type Judge func(e *event.Event) (Verdict, error)

// Builder is implemented by the settings of a type of [[filter]] that a program adds.
type Builder interface {
	config.Settings
	// Build returns what judges the events of a filter, whose Settings are the receiver. It
	// is called at check as well, so it has no effects. An error says what to correct in the
	// configuration, and holds no secret.
	Build(f config.Filter) (Judge, error)
}

// Verdict is what a filter says about an event. The zero Verdict keeps it.
type Verdict struct {
	// Drop withholds the event from all backends; later filters do not see it.
	Drop bool
	// Metadata is added to the event; a value replaces an earlier one of its key.
	// Values are strings, booleans, integers or finite floats. The map is copied
	// before the filter is called again, so a filter may use it over and over.
	Metadata event.Metadata
}

// OnError says what becomes of an event whose filter fails or panics.
type OnError uint8

// What a failing filter can mean. MongooseIM's hooks do OnErrorKeep, which lets
// an event out that a working filter might have held back.
const (
	OnErrorDeadLetter OnError = iota // to the dead letters and to no backend
	OnErrorKeep                      // as if the filter were not there
	OnErrorDrop                      // withheld from all backends
)

// String returns the value as configuration spells it.
func (o OnError) String() string {
	switch o {
	case OnErrorKeep:
		return "keep"
	case OnErrorDrop:
		return "drop"
	}
	return "dead_letter"
}

// Policy is what a chain should know about a filter beside its verdicts.
type Policy struct {
	OnError OnError
	// Override lets the metadata replace fields of the payloads (event.ReservedKey).
	Override bool
}

// WithPolicy returns f with the given policy; without it the zero Policy holds.
func WithPolicy(f Filter, p Policy) Filter { return &policed{inner: f, policy: p} }

// policed is a filter with its policy.
type policed struct {
	inner  Filter
	policy Policy
}

func (p *policed) Name() string                           { return p.inner.Name() }
func (p *policed) Priority() int                          { return p.inner.Priority() }
func (p *policed) Filter(e *event.Event) (Verdict, error) { return p.inner.Filter(e) }

// policyOf returns the policy of a filter, that of the outermost WithPolicy.
func policyOf(f Filter) Policy {
	if p, ok := f.(*policed); ok {
		return p.policy
	}
	return Policy{}
}
