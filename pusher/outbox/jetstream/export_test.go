package jetstream

import (
	"context"
	"fmt"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// Crash ends an Engine as a killed process would end it: nothing is saved or released any
// more.
func (e *Engine) Crash() {
	e.nc.Close()
	e.stop()
	e.running.Wait()
}

// Flush saves now.
func (e *Engine) Flush() error {
	for _, p := range e.parts.all() {
		if err := p.save(e.ctx, false); err != nil {
			return err
		}
	}
	return nil
}

// Trim removes now what every backend has had.
func (e *Engine) Trim() (over bool, err error) { return e.trim() }

// LogSize returns the bytes and the messages of the log.
func (e *Engine) LogSize() (bytes, messages uint64) {
	s, err := e.js.Stream(context.Background(), names{e.o.Prefix}.log())
	if err != nil {
		panic(err)
	}
	return s.CachedInfo().State.Bytes, s.CachedInfo().State.Msgs
}

// Merged returns how many backends were merged into others and have something left.
func (e *Engine) Merged() (n int) {
	m, _, err := e.set.Load().readMeta(context.Background())
	if err != nil {
		panic(err)
	}
	for _, b := range m.Backends {
		n += len(b.Merged)
	}
	return n
}

// ConnectedTo reports whether the client is connected to the server at url.
func (e *Engine) ConnectedTo(url string) bool { return e.nc.ConnectedUrl() == url }

// Dump describes what this instance knows of all.
func (e *Engine) Dump() string {
	s := fmt.Sprintf("id %s tip %d standing %+v\n", e.cluster.ID(), e.tip.Load(), e.Standing())
	for _, p := range e.parts.all() {
		s += fmt.Sprintf("  partition %d usable %v epoch %d\n", p.n, p.usable(), p.epoch)
	}
	for _, r := range *e.readers.Load() {
		for _, l := range *r.lanes.Load() {
			s += fmt.Sprintf("  %s lane %d next %d full %v %+v\n", r.backend, l.p.n, l.next.Load(), l.w.Full(), l.w.Stats())
		}
	}
	return s
}

// Lapse has the instance lose all partitions, as when its lease is over for a moment, and
// take none until resume is called.
func (e *Engine) Lapse() (resume func()) {
	open := func(yes bool) {
		e.parts.mu.Lock()
		defer e.parts.mu.Unlock()
		e.parts.opened = yes
	}
	open(false)
	for _, p := range e.parts.all() {
		e.drop(p, "")
	}
	return func() { open(true) }
}

// LogPositions returns the positions of the last message of the log.
func (e *Engine) LogPositions() ([]outbox.Position, error) {
	c, _, err := e.set.Load().newest(context.Background())
	if err != nil {
		return nil, err
	}
	return c.positions, nil
}

// Parked returns how many parked events the servers keep, listed or not.
func (e *Engine) Parked() (n int) {
	s := e.set.Load()
	err := scan(context.Background(), s.state, s.names.prefix+".state.parked.>", 1, func(r *natsrpc.Record) (bool, error) {
		if len(r.Data) > 0 {
			n++
		}
		return true, nil
	})
	if err != nil {
		panic(err)
	}
	return n
}

// Registrations returns for how many registrations the partitions of this instance list parked
// events, and progress, in all.
func (e *Engine) Registrations() (listed, progress int) {
	for _, p := range e.parts.all() {
		p.mu.Lock()
		listed, progress = listed+len(p.list), progress+len(p.reg.progress)
		p.mu.Unlock()
	}
	return listed, progress
}
