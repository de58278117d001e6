package pusher

import "eventpusher/event"

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
	// Name identifies the filter in logs and metrics.
	Name() string
	// Priority is between 1 and BackendPriority-1.
	Priority() int
	// Filter judges e, which it must not change. It is called by one goroutine at a
	// time, must not block and should take microseconds. e.Metadata is what the
	// filters before it added.
	Filter(e *event.Event) (Verdict, error)
}

// Verdict is what a filter says about an event. The zero Verdict keeps it.
type Verdict struct {
	// Drop withholds the event from all backends; later filters do not see it.
	Drop bool
	// Metadata is added to the event; a value replaces an earlier one of its key.
	Metadata event.Metadata
}
