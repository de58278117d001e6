package jetstream

import (
	"context"
	"fmt"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// Crash ends an Engine as a killed process would end it: nothing is saved or given
// up any more.
func (e *Engine) Crash() {
	e.nc.Close()
	e.stop()
	e.running.Wait()
}

// LeaveUnanswered makes it as if an Append of the event had failed without an answer, and
// one of another event had been stored in vain.
func (e *Engine) LeaveUnanswered(unanswered, stored *event.Event) {
	w := &e.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	s := e.set.Load()
	list, _, _ := e.messages(s, &outbox.Pack{Entries: []outbox.Entry{{Event: unanswered, Subscribers: 1}}})
	w.unanswered = list
	w.note(&message{events: []*event.Event{stored}})
}

// Remembered is how many events the writer has of Appends that failed.
func (e *Engine) Remembered() int {
	e.writer.mu.Lock()
	defer e.writer.mu.Unlock()
	return len(e.writer.stored) + len(e.writer.unanswered)
}

// Flush saves now.
func (e *Engine) Flush() error { return e.save() }

// Trim removes now what every backend has had.
func (e *Engine) Trim() (over bool, err error) { return e.trim() }

// LogSize returns the bytes and the messages of all partitions.
func (e *Engine) LogSize() (bytes, messages uint64) {
	for _, s := range e.set.Load().logs {
		info, err := s.Info(context.Background())
		if err != nil {
			panic(err)
		}
		bytes += info.State.Bytes
		messages += info.State.Msgs
	}
	return bytes, messages
}

// ConnectedTo reports whether the client is connected to the server at url.
func (e *Engine) ConnectedTo(url string) bool { return e.nc.ConnectedUrl() == url }

// Dump describes what this instance knows of all.
func (e *Engine) Dump() string {
	c := e.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	s := fmt.Sprintf("id %s complete %v renewed %v ago echo %v ago share %d\n", c.id, c.complete, time.Since(c.renewed), time.Since(c.echo), c.share())
	for id, m := range c.members {
		s += fmt.Sprintf("  member %s seen %v ago lives %v\n", id, time.Since(m.seen), c.lives(id))
	}
	for what, k := range c.claims {
		s += fmt.Sprintf("  claim %s owner %q revision %d\n", what, k.owner, k.revision)
	}
	for _, r := range *e.readers.Load() {
		for _, l := range *r.lanes.Load() {
			info, err := e.set.Load().logs[l.o.n].Info(context.Background())
			ci, _ := e.set.Load().logs[l.o.n].Consumer(context.Background(), consumerName(r.backend, l.number))
			l.mu.Lock()
			s += fmt.Sprintf("  lane %d open %v next %d saved %d pending %d packs %d full %v %+v\n", l.o.n, l.open.Load(), l.next, l.saved, l.pending, len(l.packs), l.w.Full(), l.w.Stats())
			l.mu.Unlock()
			if err == nil {
				s += fmt.Sprintf("    stream first %d last %d msgs %d\n", info.State.FirstSeq, info.State.LastSeq, info.State.Msgs)
			}
			if ci != nil {
				x := ci.CachedInfo()
				s += fmt.Sprintf("    consumer delivered %+v floor %+v pending %d ackpending %d waiting %d\n", x.Delivered, x.AckFloor, x.NumPending, x.NumAckPending, x.NumWaiting)
			}
		}
	}
	for what, h := range c.mine {
		s += fmt.Sprintf("  mine %s leaving %v\n", what, h.own != nil && h.own.leaving.Load())
	}
	return s
}
