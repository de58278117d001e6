package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// errNotOurs says that another instance has the partition.
var errNotOurs = errors.New("outbox: another instance has acquired the partition")

// saveLoop saves what has changed: soon, so that many changes share a write, or at once when
// somebody waits for it. It ends when the partition is lost or released.
func (p *part) saveLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := func(d time.Duration, early <-chan struct{}) bool {
		timer.Reset(d)
		select {
		case <-p.ctx.Done():
			return false
		case <-early:
		case <-timer.C:
		}
		return true
	}
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.urgent:
		case <-p.dirty:
			if !wait(saveInterval, p.urgent) {
				return
			}
		}
		err := p.save(p.ctx, false)
		switch {
		case p.ctx.Err() != nil || p.leaving.Load():
		case errors.Is(err, errNotOurs):
			p.e.drop(p, "another instance has acquired it")
		case err != nil:
			if p.e.saving.Set(err) {
				p.e.log.Error("the outbox cannot save what was delivered; deliveries stop until it can", "err", err)
			}
			if !wait(savePause, nil) {
				return
			}
			signal(p.urgent)
		case p.e.saving.Set(nil):
			p.e.log.Info("the outbox saves again what was delivered")
		}
	}
}

// saveJob is what one save writes of one lane.
type saveJob struct {
	l   *lane
	cut outbox.Cut
}

// save writes all that has changed, together or not at all; giving also says that the
// partition is nobody's any more. The register comes last and expects what was saved last,
// so that a predecessor's save is refused as a whole.
func (p *part) save(ctx context.Context, giving bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for again := giving; again; again = len(p.freed) > 0 { // the next owner does not know of them
		if err := p.saveOnce(ctx, false); err != nil {
			return err
		}
	}
	return p.saveOnce(ctx, giving)
}

// saveOnce is one write of save. p.mu is held.
func (p *part) saveOnce(ctx context.Context, giving bool) error {
	var jobs []saveJob
	for _, l := range p.lanes {
		if cut, changed := l.w.Cut(); changed {
			jobs = append(jobs, saveJob{l, cut})
		}
	}
	if len(jobs) == 0 && len(p.freed) == 0 && !giving {
		return nil
	}
	s := p.e.set.Load()
	p.reg.commits++
	next, list := p.after(jobs, giving)
	ahead, freed := p.messages(s, jobs, list)
	if err := p.write(ctx, s, ahead, append(slices.Clip(p.freed), freed...), &next); err != nil {
		for i := range jobs {
			jobs[i].l.w.Undo(&jobs[i].cut)
		}
		return err
	}
	p.reg = next
	if list != nil {
		p.list = list
	}
	for i := range jobs {
		l := jobs[i].l
		l.saved = jobs[i].cut.Progress
		if l.w.Saved(&jobs[i].cut) {
			l.r.notify()
		}
		signal(l.r.wake)
	}
	if len(p.freed) > 0 {
		signal(p.urgent)
	}
	return nil
}

// after returns register and list as they will be; the list is nil if it does not change.
func (p *part) after(jobs []saveJob, giving bool) (next register, list parkedList) {
	next = p.reg
	next.progress = maps.Clone(p.reg.progress)
	if giving {
		next.owner = ""
	}
	for i := range jobs {
		l, c := jobs[i].l, &jobs[i].cut
		next.progress[l.backend] = c.Progress
		if len(c.Parked)+len(c.Tries)+len(c.Freed) == 0 {
			continue
		}
		if list == nil {
			list = maps.Clone(p.list)
		}
		of := maps.Clone(list[l.backend])
		if of == nil {
			of = make(map[uint64]int)
		}
		for _, one := range c.Parked {
			of[one.ID.Number()] = one.Attempts
		}
		for _, t := range c.Tries {
			if _, ok := of[t.ID.Number()]; ok && !t.ID.Replay() {
				of[t.ID.Number()] = t.Attempts
			}
		}
		for _, id := range c.Freed {
			if !id.Replay() {
				delete(of, id.Number())
			}
		}
		list[l.backend] = of
	}
	return next, list
}

// messages returns what has to be stored before the register or with it, the list last, and
// the tombstones of parked events that are gone, which must not be stored before.
func (p *part) messages(s *layout, jobs []saveJob, list parkedList) (ahead, freed []*nats.Msg) {
	for i := range jobs {
		c := &jobs[i].cut
		gone := make(map[outbox.ParkedID]bool)
		for _, id := range c.Freed {
			gone[id] = true
			// An empty message replaces the event, and goes by itself.
			freed = append(freed, natsrpc.NewMsg(s.names.parked(p.n, id), nil, natsrpc.Expires(time.Second)))
		}
		for j := range c.Parked {
			if !gone[c.Parked[j].ID] {
				ahead = append(ahead, parkedMessage(s.names, p.n, &c.Parked[j]))
			}
		}
		for j := range c.Letters {
			ahead = append(ahead, letterMessage(s.names, fmt.Sprint(p.n), &c.Letters[j]))
		}
	}
	if list != nil {
		ahead = append(ahead, natsrpc.NewMsg(s.names.parkedList(p.n), list.append(nil)))
	}
	return ahead, freed
}

// maxBatchBytes bounds a batch, about.
const maxBatchBytes = 8 << 20

// write stores the messages and then the register. If there are very many, the first ones
// go ahead: without list and register they say nothing yet. Tombstones that do not fit any
// more are left for the next save.
func (p *part) write(ctx context.Context, s *layout, all, freed []*nats.Msg, next *register) error {
	for {
		n, bytes := 0, 0
		for ; n < len(all) && n < natsrpc.MaxBatch && bytes < maxBatchBytes; n++ {
			bytes += len(all[n].Data)
		}
		batch := all[:n:n]
		all = all[n:]
		last := len(all) == 0
		reg := p.reg
		if last {
			reg = *next
			n = min(natsrpc.MaxBatch-n, len(freed))
			batch = append(batch, freed[:n]...)
		}
		reg.commits = p.reg.commits
		batch = append(batch, natsrpc.NewMsg(s.names.part(p.n), reg.append(nil), natsrpc.AfterSubject(p.seq)))
		trying, cancel := context.WithTimeout(ctx, requestTimeout)
		seq, err := s.state.WriteAll(trying, batch)
		cancel()
		if err != nil {
			if err = p.look(s, &reg, err); err != nil {
				return err
			}
		} else {
			p.seq = seq
		}
		if last {
			next.commits, p.freed = reg.commits, freed[n:]
			return nil
		}
		p.reg.commits++
	}
}

// look finds out what became of a write whose answer was a refusal, or did not come. It
// returns nil if it is stored, and errNotOurs if another instance has the partition.
func (p *part) look(s *layout, written *register, why error) error {
	ctx, cancel := p.e.request()
	defer cancel()
	r, ok, err := s.state.Newest(ctx, s.names.part(p.n))
	if err != nil || !ok || r.Seq == p.seq {
		return fmt.Errorf("outbox: save: %w", natsrpc.Explain(why)) // not stored, or not to be known yet
	}
	reg, err := decodeRegister(r.Data)
	if err != nil {
		return err
	}
	if reg.epoch != p.epoch {
		return errNotOurs
	}
	p.seq = r.Seq
	if reg.commits == written.commits {
		return nil
	}
	return fmt.Errorf("outbox: save: %w", why) // an earlier save of ours came in; this one will not any more
}
