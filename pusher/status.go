package pusher

import (
	"errors"
	"fmt"
	"time"
)

// Status is a snapshot of the pusher, without content or secrets.
type Status struct {
	Backends []BackendStatus // in the order of Options
}

// BackendStatus is a snapshot of one backend.
type BackendStatus struct {
	Name          string
	State         State
	Waiting       int           // events that no lane holds
	InFlight      int           // events in calls of the backend
	Bytes         int64         // estimated memory of both
	OldestAge     time.Duration // of both; 0 when there is none
	Delivered     uint64
	Failed        uint64 // failed attempts
	DeadLetters   uint64
	Shed          uint64
	LastError     string // "" when there was none yet
	LastErrorTime time.Time
}

// Status returns a snapshot. It is safe for concurrent use.
func (p *Pusher) Status() Status {
	var out Status
	for _, d := range p.dispatchers {
		out.Backends = append(out.Backends, d.status())
	}
	return out
}

func (d *dispatcher) status() BackendStatus {
	s := d.reader.Stats()
	b := BackendStatus{
		Name: d.name, Waiting: s.Waiting, InFlight: s.InFlight, Bytes: s.Bytes, Shed: s.Shed,
		Delivered: d.delivered.Load(), Failed: d.failed.Load(), DeadLetters: d.dead.Load(),
	}
	if !s.Oldest.IsZero() {
		b.OldestAge = time.Since(s.Oldest)
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

// Healthy returns nil when events can be taken. A service that is down does not
// matter here: its events wait. It is safe for concurrent use.
func (p *Pusher) Healthy() error {
	if p.closed.Load() {
		return errStopped
	}
	if err := p.failure.Load(); err != nil {
		return fmt.Errorf("pusher: the outbox does not take events: %w", *err)
	}
	return nil
}
