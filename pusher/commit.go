package pusher

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// How long the committer waits before it offers refused events again.
const (
	fullPause    = 100 * time.Millisecond // an outbox that is full
	failurePause = 500 * time.Millisecond // a disk that fails
)

// errWithdrawn is what batches get that Withdraw has given back.
var errWithdrawn = errors.New("pusher: withdrawn, since another instance may have the feed now")

// errStopping is what batches get that came while the outbox took nothing until
// the end.
var errStopping = errors.New("pusher: stopped before the outbox took the events")

// commitLoop puts what was pushed into the outbox, one pack after the other,
// each of what has come while the last one was written. It returns when the
// intake is closed and empty, or takes nothing more.
func (p *Pusher) commitLoop() {
	defer close(p.flushed)
	in := p.intake
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if recalled := in.takeRecall(); recalled != nil {
			p.giveUpIntake(errWithdrawn)
			p.failure.Store(nil) // of the outbox of a former term
			close(recalled)
		}
		closed := in.isClosed()
		now, progress, again := time.Now(), false, time.Time{}
		for _, l := range []*line{&in.plain, &in.acked} {
			if closed || !l.again.After(now) {
				progress = p.commitLine(l, now) || progress
			}
			if l.again.After(now) {
				again = earlier(again, l.again)
			}
		}
		switch {
		case progress:
			continue
		case closed:
			p.giveUpIntake(errStopping)
			return
		case again.IsZero():
			<-in.work
		default:
			timer.Reset(time.Until(again))
			select {
			case <-in.work:
			case <-timer.C:
			}
		}
	}
}

// commitLine commits one pack of a line and reports whether it did. If the outbox
// refuses it, the line rests.
func (p *Pusher) commitLine(l *line, now time.Time) bool {
	list := p.intake.take(l)
	if len(list) == 0 {
		return false
	}
	positions, err := p.commit(list)
	if err != nil {
		pause := failurePause
		if errors.Is(err, outbox.ErrFull) {
			pause = fullPause
		}
		l.again = now.Add(pause)
		p.intake.back(l, list)
		return false
	}
	l.again = time.Time{}
	p.intake.done(l, list)
	for _, b := range list {
		if b.committed != nil {
			b.committed(nil)
		}
	}
	if len(positions) > 0 {
		p.feeds.Kept(positions)
	}
	return true
}

// commit makes one pack of the batches, and returns the positions that it brings.
func (p *Pusher) commit(list []*batch) ([]outbox.Position, error) {
	var (
		pack    outbox.Pack
		letters []outbox.DeadLetter
	)
	for _, b := range list {
		p.fit(b)
		letters = append(letters, b.letters...)
		pack.Positions = latest(pack.Positions, b.positions)
	}
	if len(list) == 1 {
		pack.Entries = list[0].entries
	} else {
		for _, b := range list {
			p.pack = append(p.pack, b.entries...)
		}
		pack.Entries = p.pack
		defer func() {
			clear(p.pack)
			p.pack = p.pack[:0]
		}()
	}
	err := p.box.Bury(letters...)
	if err == nil {
		p.buried(letters)
		for _, b := range list {
			b.letters = nil // kept now, whatever becomes of the rest
		}
		err = p.box.Append(pack)
	}
	if !errors.Is(err, outbox.ErrFull) || len(pack.Positions) == 0 {
		p.appended(err) // a feed that waits is no failure
	}
	return pack.Positions, err
}

// fit makes what the outbox cannot keep small enough. Of dead letters only the addresses
// stay. Events become dead letters, one for each of their backends, and no backend gets them.
func (p *Pusher) fit(b *batch) {
	limit := p.box.Largest()
	for i := range b.letters {
		if d := &b.letters[i]; d.Event != nil && event.BinarySize(d.Event) > limit {
			d.Event, d.Err = withoutTexts(d.Event), d.Err+"; "+tooLarge(d.Event, limit)
		}
	}
	now := time.Now()
	for i := range b.entries {
		e, subscribers := b.entries[i].Event, b.entries[i].Subscribers
		if subscribers == 0 || event.BinarySize(e) <= limit {
			continue
		}
		for name, r := range p.readers() {
			if subscribers.Has(r.Number()) {
				b.letters = append(b.letters, outbox.DeadLetter{
					Event: withoutTexts(e), Backend: name, Reason: reasonTooLarge, Err: tooLarge(e, limit), Accepted: now, Died: now,
				})
			}
		}
		b.entries[i].Subscribers = 0
		if held, ok := p.largeLog.allow(now, time.Second); ok {
			p.log.Error("an event is too large for the outbox: it becomes a dead letter", "event_id", e.ID, "err", tooLarge(e, limit), "since_last_line", held)
		}
	}
}

// readers are those of the backends that are configured, and of those that were, in order.
func (p *Pusher) readers() iter.Seq2[string, outbox.Reader] {
	return func(yield func(string, outbox.Reader) bool) {
		for _, d := range p.all() {
			if !yield(d.name, d.reader) {
				return
			}
		}
		for _, l := range p.left() {
			if !yield(l.name, l.reader) {
				return
			}
		}
	}
}

// withoutTexts returns a copy of an event without what can be large.
func withoutTexts(e *event.Event) *event.Event {
	cut := *e
	cut.Packet, cut.Body, cut.Metadata = "", "", nil
	for _, id := range []*string{&cut.StanzaID, &cut.Replaces} {
		if len(*id) > longestError { // the client has chosen it
			*id = ""
		}
	}
	return &cut
}

// tooLarge says why an event became a dead letter.
func tooLarge(e *event.Event, limit int) string {
	return fmt.Sprintf("the event takes %d bytes and the outbox keeps %d at most: packet and body are left out here. Lower [component] max_stanza_size, or raise max_payload of nats-server", event.BinarySize(e), limit)
}

// buried counts letters that the outbox has taken.
func (p *Pusher) buried(letters []outbox.DeadLetter) {
	for i := range letters {
		p.metrics.dead.WithLabelValues(letters[i].Backend, letters[i].Reason).Inc()
		if d := p.find(letters[i].Backend); d != nil {
			d.dead.Add(1)
		}
	}
}

// latest adds positions to list, of each source only the last one: a pack is kept as a
// whole or not at all, and hundreds of its events may come from one source.
func latest(list, news []outbox.Position) []outbox.Position {
	for _, n := range news {
		i := slices.IndexFunc(list, func(p outbox.Position) bool { return p.Source == n.Source })
		if i < 0 {
			list = append(list, n)
		} else {
			list[i] = n
		}
	}
	return list
}

// appended notes whether the outbox takes events.
func (p *Pusher) appended(err error) {
	switch {
	case err != nil:
		if p.failure.Swap(&err) == nil {
			p.log.Error("the outbox does not take events", "err", err)
		}
	case p.failure.Load() != nil:
		p.failure.Store(nil)
		p.log.Info("the outbox takes events again")
	}
}

// refused tells the sources of these positions that what they stand for is given up.
func (p *Pusher) refused(positions []outbox.Position) {
	for _, at := range positions {
		p.feeds.Refused(at.Source)
	}
}

// giveUpIntake empties the intake. Acknowledged feeds are told, and keep their events;
// the others are counted as dropped and logged.
func (p *Pusher) giveUpIntake(why error) {
	lost := 0
	var sources []outbox.Position
	for _, l := range []*line{&p.intake.plain, &p.intake.acked} {
		for list := p.intake.take(l); len(list) > 0; list = p.intake.take(l) {
			for _, b := range list {
				sources = latest(sources, b.positions)
				p.notTaken(b.entries)
				if b.committed != nil {
					b.committed(why)
				}
				if l == &p.intake.plain { // the sender of the others keeps them, all parts of what it has pushed
					p.metrics.droppedBy[dropOutbox].Add(float64(len(b.entries) + len(b.letters)))
					lost += len(b.entries) + len(b.letters)
				}
			}
			p.intake.done(l, list)
		}
		l.again = time.Time{}
	}
	p.refused(sources)
	if lost > 0 {
		// The metric ends with the process.
		p.log.Error("events are lost: the outbox did not take them in time", "events", lost, "err", why)
	}
}
