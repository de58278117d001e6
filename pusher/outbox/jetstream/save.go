package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"eventpusher/pusher/outbox"
)

// saver is the state of saving.
type saver struct {
	dirty, urgent chan struct{} // something is to be saved: soon, now
	mu            sync.Mutex    // one save at a time
	freed         []uint64      // sequences of parked events to delete
}

func (s *saver) init() {
	s.dirty, s.urgent = make(chan struct{}, 1), make(chan struct{}, 1)
}

func (s *saver) touch() { signal(s.dirty) }
func (s *saver) hurry() { signal(s.urgent) }

// saveLoop saves what has changed: soon, so that many changes share the way, or
// at once when somebody waits for it.
func (e *Engine) saveLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := func(d time.Duration, early <-chan struct{}) bool {
		timer.Reset(d)
		select {
		case <-e.ctx.Done():
			return false
		case <-early:
		case <-timer.C:
		}
		return true
	}
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.saver.urgent:
		case <-e.saver.dirty:
			if !wait(saveInterval, e.saver.urgent) {
				return
			}
		}
		if e.set.Load() == nil {
			continue
		}
		err := e.save()
		switch {
		case err != nil && e.ctx.Err() == nil:
			if e.saving.set(err) {
				e.log.Error("the outbox cannot save what was delivered; deliveries stop until it can", "err", err)
			}
			if !wait(savePause, nil) {
				return
			}
			e.saver.hurry()
		case err == nil && e.saving.set(nil):
			e.log.Info("the outbox saves again what was delivered")
		}
	}
}

// saveJob is what one save writes of one lane.
type saveJob struct {
	l       *lane
	cut     outbox.Cut
	parked  []js.PubAckFuture // as cut.Parked
	letters []js.PubAckFuture // as cut.Letters
	record  js.PubAckFuture
	err     error
}

// save writes all that has changed: first what is parked or dead, then how far
// each backend has come, which makes that final.
func (e *Engine) save() error {
	e.saver.mu.Lock()
	defer e.saver.mu.Unlock()
	s := e.set.Load()
	var jobs []*saveJob
	for _, r := range *e.readers.Load() {
		for _, l := range *r.lanes.Load() {
			if !l.open.Load() {
				continue // not ours any more: whoever has it now writes
			}
			if cut, changed := l.w.Cut(); changed {
				jobs = append(jobs, &saveJob{l: l, cut: cut})
			}
		}
	}
	for _, j := range jobs {
		for i := range j.cut.Parked {
			j.parked = append(j.parked, j.publish(e, parkedMessage(s.names, j.l.o.n, &j.cut.Parked[i])))
		}
		for i := range j.cut.Letters {
			m, id := letterMessage(s.names, &j.cut.Letters[i])
			j.letters = append(j.letters, j.publish(e, m, js.WithMsgID(id)))
		}
	}
	for _, j := range jobs {
		for i, f := range j.parked {
			if ack := j.answer(f); ack != nil {
				j.l.mu.Lock()
				j.l.places[j.cut.Parked[i].ID] = ack.Sequence
				j.l.mu.Unlock()
			}
		}
		for _, f := range j.letters {
			j.answer(f)
		}
		if j.err == nil {
			j.record = j.publish(e, j.l.progress(s, &j.cut), js.WithExpectLastSequencePerSubject(j.l.revision))
		}
	}
	var errs []error
	for _, j := range jobs {
		if j.record != nil {
			if ack := j.answer(j.record); ack != nil {
				j.l.revision = ack.Sequence
			} else if wrongRevision(j.err) {
				j.err = j.l.recover(e, s, &j.cut)
			}
		}
		if j.err != nil {
			j.l.w.Undo(&j.cut)
			errs = append(errs, j.err)
			continue
		}
		j.l.acknowledge(&j.cut)
		e.saver.freed = append(e.saver.freed, j.l.free(j.cut.Freed)...)
		if j.l.w.Saved(&j.cut) {
			j.l.r.notify()
		}
		j.l.refill()
	}
	e.deleteFreed(s)
	if len(errs) > 0 {
		return fmt.Errorf("outbox: save: %w", explain(errs[0])) // the others say the same
	}
	return nil
}

// publish sends a message; an error is noted.
func (j *saveJob) publish(e *Engine, m *nats.Msg, o ...js.PublishOpt) js.PubAckFuture {
	if j.err != nil {
		return nil
	}
	f, err := e.js.PublishMsgAsync(m, o...)
	if err != nil {
		j.err = err
		return nil
	}
	return f
}

// answer waits for an acknowledgement; an error is noted.
func (j *saveJob) answer(f js.PubAckFuture) *js.PubAck {
	if f == nil {
		return nil
	}
	ack, err := answer(f)
	if err != nil && j.err == nil {
		j.err = err
	}
	return ack
}

// progress is the record of how far the lane has come.
func (l *lane) progress(s *setup, c *outbox.Cut) *nats.Msg {
	m := nats.NewMsg(subject(s.names.state(), keyProgress(l.o.n, l.number)))
	m.Data = encodeProgress(l.token, c)
	return m
}

// wrongRevision reports whether somebody else has written meanwhile.
func wrongRevision(err error) bool {
	var api *js.APIError
	return errors.As(err, &api) && (api.ErrorCode == js.JSErrCodeStreamWrongLastSequence || api.ErrorCode == js.JSErrCodeStreamWrongLastSequenceConstant)
}

// recover finds out who has written the record instead of us. When it was we
// ourselves, and the answer got lost, it is written again; otherwise the partition
// is not ours any more, and neither is what we have parked of it just now.
func (l *lane) recover(e *Engine, s *setup, c *outbox.Cut) error {
	ctx, cancel := e.request()
	defer cancel()
	key := keyProgress(l.o.n, l.number)
	entry, err := s.state.Get(ctx, key)
	if err != nil {
		return err
	}
	writer, _, err := decodeProgress(entry.Value())
	if err != nil {
		return err
	}
	if writer == l.token {
		l.revision, err = s.state.Update(ctx, key, encodeProgress(l.token, c), entry.Revision())
		return err
	}
	for i := range c.Parked {
		e.saver.freed = append(e.saver.freed, l.free([]outbox.ParkedID{c.Parked[i].ID})...)
	}
	l.open.Store(false)
	e.cluster.deposed()
	return errors.New("outbox: another instance has taken over the partition")
}

// free returns where events are kept that are not parked any more.
func (l *lane) free(ids []outbox.ParkedID) (list []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if seq, ok := l.places[id]; ok {
			list = append(list, seq)
			delete(l.places, id)
		}
	}
	return list
}

// deletions is how many requests to delete are on their way at a time.
const deletions = 16

// deleteFreed removes what is not parked any more. What cannot be removed now
// is removed the next time; an event whose removal is never reached is delivered
// a second time by whoever has the partition next.
func (e *Engine) deleteFreed(s *setup) {
	if len(e.saver.freed) == 0 {
		return
	}
	left := deleteMessages(e.ctx, s.parked, e.saver.freed)
	e.saver.freed = left
	if len(left) > 0 {
		e.saver.touch()
	}
}

// deleteMessages returns the sequences that could not be deleted.
func deleteMessages(ctx context.Context, s js.Stream, seqs []uint64) (left []uint64) {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(deletions)
	for _, seq := range seqs {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			err := s.DeleteMsg(ctx, seq)
			var api *js.APIError
			if err != nil && !errors.As(err, &api) { // the server's own answer is that it is not there
				mu.Lock()
				left = append(left, seq)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = group.Wait() // always nil
	return left
}
