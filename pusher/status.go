package pusher

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"eventpusher/pusher/filter"
)

// Status is a snapshot of the pusher, without content or secrets.
type Status struct {
	Filters  []filter.Count  `json:"filters,omitempty"` // in the order in which they are asked
	Backends []BackendStatus `json:"backends"`          // in the order of Options
	// Unconfigured are backends that are not configured and for which events wait.
	Unconfigured []UnconfiguredStatus `json:"unconfigured,omitempty"`
}

// UnconfiguredStatus is a snapshot of a backend that is not configured.
type UnconfiguredStatus struct {
	Name      string `json:"name"`
	Waiting   int    `json:"waiting"`
	OldestAge Age    `json:"oldest_age_seconds"`
}

// BackendStatus is a snapshot of one backend.
type BackendStatus struct {
	Name        string `json:"name"`
	State       State  `json:"breaker"`
	Waiting     int    `json:"waiting"`   // events that no lane holds
	InFlight    int    `json:"in_flight"` // events in calls of the backend
	Parked      int    `json:"parked"`    // those of both whose conversation keeps failing
	Bytes       int64  `json:"bytes"`     // estimated memory of all
	OldestAge   Age    `json:"oldest_age_seconds"`
	Delivered   uint64 `json:"delivered"`
	Failed      uint64 `json:"failed_attempts"` // failed attempts
	DeadLetters uint64 `json:"dead_letters"`
	Shed        uint64 `json:"shed"`
	Lost        uint64 `json:"lost"` // events that the outbox could not read any more
	// LastError is what the backend said last when it failed.
	LastError     string    `json:"last_error,omitempty"`
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
}

// Age is how long the oldest waiting event has waited, 0 when there is none; in
// JSON it is in seconds.
type Age time.Duration

// age returns the age of what was accepted at the given time; zero means that nothing is
// there.
func age(accepted time.Time) Age {
	if accepted.IsZero() {
		return 0
	}
	return Age(time.Since(accepted))
}

// MarshalJSON writes whole milliseconds as a fraction of seconds.
func (a Age) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(a).Round(time.Millisecond).Seconds(), 'f', -1, 64), nil
}

// Status returns a snapshot. It is safe for concurrent use.
func (p *Pusher) Status() Status {
	var out Status
	p.mu.Lock()
	chain := p.chain
	p.mu.Unlock()
	if chain != nil {
		out.Filters = chain.Counts()
	}
	for _, d := range p.all() {
		out.Backends = append(out.Backends, d.status())
	}
	for _, l := range p.left() {
		s := l.reader.Stats()
		out.Unconfigured = append(out.Unconfigured, UnconfiguredStatus{Name: l.name, Waiting: s.Waiting + s.InFlight, OldestAge: age(s.Oldest)})
	}
	return out
}

func (d *dispatcher) status() BackendStatus {
	s := d.reader.Stats()
	b := BackendStatus{
		Name: d.name, Waiting: s.Waiting, InFlight: s.InFlight, Parked: s.Parked, Bytes: s.Bytes, Shed: s.Shed, Lost: s.Lost,
		Delivered: d.delivered.Load(), Failed: d.failed.Load(), DeadLetters: d.dead.Load(),
		OldestAge: age(s.Oldest),
	}
	if e := d.lastError.Load(); e != nil {
		b.LastError, b.LastErrorTime = e.text, e.when
	}
	d.mu.Lock()
	b.State = d.gate.state()
	d.mu.Unlock()
	return b
}

// errStopped is what Healthy says after Drain or the end of Run.
var errStopped = errors.New("pusher: stopped")

// errRefused is what PushAcked says of events that found no room.
var errRefused = errors.New("pusher: not accepted")

// Healthy returns nil when events can be taken. A service that is down does not
// matter here: its events wait. It is safe for concurrent use.
func (p *Pusher) Healthy() error {
	if p.closed.Load() {
		return errStopped
	}
	if err := p.failure.Load(); err != nil {
		return fmt.Errorf("pusher: the outbox does not take events: %w", *err)
	}
	return p.box.Err()
}
