package pusher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
)

// Push filters the events and hands what a backend wants to the outbox. It never
// waits for a backend, and for the disk only when very much waits for it already.
// The slice and its events stay the caller's; the texts that the events point to
// must not change any more.
func (p *Pusher) Push(events []event.Event) { p.push(events, nil, nil) }

// PushAcked is Push for a caller that wants to know what became of the events. committed
// is called once, by another goroutine or by this one, in the order of the calls: with nil
// when the events are on disk, else with why they are not. It must not block.
func (p *Pusher) PushAcked(events []event.Event, committed func(error)) {
	p.push(events, nil, committed)
}

// Feeds hears what became of what PushFeed and BuryFeed have accepted. Any goroutine may
// call it; it must not block.
type Feeds interface {
	// Kept says that these positions, each of another source, are on disk, with all that
	// was accepted of their sources before. The slice is the caller's.
	Kept(positions []outbox.Position)
	// Refused says that what was accepted of a source and is not kept yet is given up:
	// the source has to send it again.
	Refused(source string)
}

// noFeeds is Feeds where nobody listens.
type noFeeds struct{}

func (noFeeds) Kept([]outbox.Position) {}
func (noFeeds) Refused(string)         {}

// PushFeed is Push for a source that keeps its events until it hears that they are on
// disk (Feeds). at is where the source stands with these events. False says that they
// were not accepted, and are to be sent again; Feeds hears nothing of them then.
func (p *Pusher) PushFeed(events []event.Event, at outbox.Position) bool {
	return p.push(events, &at, nil)
}

// Forward hands events to the backend of that name, which has made them itself of
// events that it was given. They pass no filter and no condition, no other backend gets
// them, and all are in one pack. Forward blocks until they are as safe as the outbox makes
// them, or until ctx ends: then they may still be accepted. It is safe for concurrent use.
func (p *Pusher) Forward(ctx context.Context, backend string, events []event.Event) error {
	d := p.find(backend)
	if d == nil {
		return fmt.Errorf("no backend is called %q", backend)
	}
	var subscriber outbox.Subscribers
	subscriber.Add(d.reader.Number())
	entries := make([]outbox.Entry, len(events))
	for i := range events {
		p.metrics.event(&events[i])
		entries[i] = outbox.Entry{Event: &events[i], Subscribers: subscriber}
	}
	return p.forward(ctx, entries)
}

// forward hands entries to the committer, and returns when the outbox has taken them, or ctx
// ends: then it may still take them.
func (p *Pusher) forward(ctx context.Context, entries []outbox.Entry) error {
	taken := make(chan error, 1)
	p.pushing.Lock()
	if p.closed.Load() {
		p.pushing.Unlock()
		return errStopped
	}
	p.hand(batch{entries: entries, committed: func(err error) { taken <- err }})
	p.pushing.Unlock()
	return await(ctx, taken)
}

// await returns what comes, or the error of ctx.
func await(ctx context.Context, taken <-chan error) error {
	select {
	case err := <-taken:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Bury records letters of reason ReasonUndecodable, which are about no event that a
// backend could take, among the dead letters. Push, PushFeed, Bury and BuryFeed are called by one goroutine.
func (p *Pusher) Bury(letters []outbox.DeadLetter) { p.bury(letters, nil) }

// BuryFeed is Bury for a source, as PushFeed is Push.
func (p *Pusher) BuryFeed(letters []outbox.DeadLetter, at outbox.Position) bool {
	return p.bury(letters, &at)
}

// Flush returns when the outbox has taken everything that was pushed before, or ctx ends.
// Run has to be running.
func (p *Pusher) Flush(ctx context.Context) {
	if p.intake != nil {
		p.intake.empty(ctx)
	}
}

// Withdraw gives up what was pushed and the outbox has not taken yet, and returns once that
// is done; an Append that is under way ends first. What PushAcked, PushFeed and BuryFeed have
// brought is refused, so that its feed sends it again; the rest is lost and counted as dropped.
// The owner of the feeds calls it if another instance may have them: an event of a former term
// must not be committed after the events that the other instance has taken since. Nothing may
// be pushed meanwhile, and Run has to be running.
func (p *Pusher) Withdraw() {
	select {
	case <-p.intake.recall():
	case <-p.flushed: // nothing is left, and nothing more is taken
	}
}

func (p *Pusher) bury(letters []outbox.DeadLetter, at *outbox.Position) bool {
	p.pushing.Lock()
	defer p.pushing.Unlock()
	b := batch{letters: letters, positions: p.position(at)}
	if p.closed.Load() {
		return p.refuse(b, dropStopped, len(letters))
	}
	for i := range letters {
		if e := letters[i].Event; e != nil && p.trace != nil {
			p.trace.Add(&trace.Arrival{Event: e, Came: time.Now(), Fate: trace.Dead, Error: letters[i].Err})
		}
	}
	return p.hand(b)
}

// position returns at, nil for none, as a batch takes it until it is handed over.
func (p *Pusher) position(at *outbox.Position) []outbox.Position {
	if at == nil {
		return nil
	}
	p.at[0] = *at
	return p.at[:]
}

func (p *Pusher) push(events []event.Event, at *outbox.Position, committed func(error)) bool {
	p.pushing.Lock()
	defer p.pushing.Unlock()
	b := batch{positions: p.position(at), committed: committed}
	if p.closed.Load() {
		return p.refuse(b, dropStopped, len(events))
	}
	p.entries, p.letters, p.now = p.entries[:0], p.letters[:0], time.Now()
	for i := range events {
		p.scratch = events[i]
		p.metrics.event(&p.scratch)
		p.route(&p.scratch)
	}
	p.scratch = event.Event{}
	b.entries, b.letters = p.entries, p.letters
	ok := p.hand(b)
	if !ok {
		p.notTaken(b.entries)
	}
	clear(p.entries)
	clear(p.letters)
	return ok
}

// route filters one event, finds its subscribers, and remembers what became of it. p.now is
// the time.
func (p *Pusher) route(e *event.Event) {
	t := &p.traced
	*t = trace.Arrival{Came: p.now, Fate: trace.Kept, Destinations: t.Destinations[:0]}
	if p.chain != nil {
		t.Filters = p.chain.Names()
	}
	t.Event = p.choose(e)
	if p.log.Enabled(context.Background(), slog.LevelDebug) {
		to := make([]string, len(t.Destinations))
		for i, d := range t.Destinations {
			to[i] = d.Destination + ": " + string(d.State)
		}
		p.log.Debug("event", "event_id", e.ID, "sort", e.Sort(), "stanza_id", e.StanzaID, "feed", e.Dialect, "fate", string(t.Fate), "filter", t.By, "destinations", to)
	}
	p.options.Spans.Event(e, p.now, string(t.Fate), t.By)
	if p.trace == nil {
		return
	}
	if t.Event == nil {
		t.Event = new(event.Event)
		*t.Event = *e
	}
	p.trace.Add(t)
}

// choose filters one event, finds its subscribers, and returns what they get, if there are
// any. The end of an account passes no
// filter: nobody is told of it, and one that keeps only chat, say, would keep for ever
// what the account had registered.
func (p *Pusher) choose(e *event.Event) (kept *event.Event) {
	if e.Kind != event.Removed && p.chain != nil && !p.filter(e) {
		return nil
	}
	var subscribers outbox.Subscribers
	for _, d := range p.all() {
		if p.gets(d, e) {
			subscribers.Add(d.reader.Number())
			p.traced.Destinations = append(p.traced.Destinations, trace.Delivery{Destination: d.name, State: trace.Waiting, Time: p.now})
		}
	}
	if subscribers == 0 {
		p.metrics.droppedBy[dropUnwanted].Inc()
		p.traced.Fate = trace.Unwanted
		return nil
	}
	kept = new(event.Event)
	*kept = *e
	p.entries = append(p.entries, outbox.Entry{Event: kept, Subscribers: subscribers})
	return kept
}

// notTaken remembers that the outbox has not got these.
func (p *Pusher) notTaken(entries []outbox.Entry) {
	i := -1
	p.trace.Refused(func() (string, bool) {
		if i++; i >= len(entries) {
			return "", false
		}
		return entries[i].Event.ID, true
	})
}

// hand gives a batch to the committer, and reports whether it was accepted.
func (p *Pusher) hand(b batch) bool {
	if len(b.entries)+len(b.letters)+len(b.positions) == 0 && b.committed == nil {
		return true
	}
	why, ok := p.intake.put(b)
	if !ok {
		p.refuse(b, why, len(b.entries)+len(b.letters))
	}
	return ok
}

// refuse says that a batch was not accepted, and returns false.
func (p *Pusher) refuse(b batch, why dropReason, events int) bool {
	switch {
	case b.committed != nil:
		b.committed(errRefused)
	case len(b.positions) == 0: // else the source keeps it
		p.metrics.droppedBy[why].Add(float64(events))
	}
	return false
}

// filter runs the chain and reports whether the event goes on.
func (p *Pusher) filter(e *event.Event) bool {
	r := p.chain.Run(e)
	p.traced.By = r.By
	if r.Err != nil {
		p.traced.Error = r.Err.Error()
	}
	switch r.Fate {
	case filter.Drop:
		p.metrics.droppedBy[dropFilter].Inc()
		p.traced.Fate = trace.Dropped
	case filter.DropOnError:
		p.metrics.droppedBy[dropFilterError].Inc()
		p.traced.Fate = trace.Failed
	case filter.Dead:
		dead := new(event.Event)
		*dead = *e
		p.letters = append(p.letters, outbox.DeadLetter{Event: dead, Reason: reasonFilter, Err: r.Err.Error(), Accepted: p.now, Died: p.now})
		p.traced.Fate = trace.Dead
	default:
		return true
	}
	return false
}

// wants asks the backend. One that panics gets the event, so that Publish
// decides about it and nothing is lost in silence.
func (d *dispatcher) wants(e *event.Event) (yes bool) {
	defer func() {
		if v := recover(); v != nil {
			d.panics()
			yes = true
		}
	}()
	return d.backend.Wants(e)
}

// Replay gives dead letters back to their backends; see outbox.Outbox. Those that
// no backend has seen go through the filters again, as if they had just come, to
// all that want them; those that hold no event stay. If ctx ends Replay returns; the event
// that is on its way to the outbox then may be delivered although its letter stays. It is safe
// for concurrent use, while Run runs.
func (p *Pusher) Replay(ctx context.Context, f outbox.LetterFilter) (int, error) {
	replayed, err := p.box.Replay(f)
	if err != nil || f.Backend != "" && f.Backend != outbox.NoBackend || f.Limit > 0 && replayed >= f.Limit {
		return replayed, err
	}
	f.Limit = max(f.Limit-replayed, 0)
	f.Backend = outbox.NoBackend
	numbers, err := p.unseen(f)
	if err != nil {
		return replayed, err
	}
	for _, n := range numbers {
		d, err := p.box.DeadLetters().Get(n)
		switch {
		case errors.Is(err, outbox.ErrNoLetter):
			continue // somebody else was faster
		case err == nil:
			err = p.replay(ctx, d)
		}
		if err != nil {
			return replayed, err
		}
		replayed++
	}
	return replayed, nil
}

// lettersAtOnce is how many dead letters are read at once: each comes with its stanza.
const lettersAtOnce = 500

// unseen returns the numbers of the selected dead letters that can be replayed. Those
// whose filter fails again come back under new numbers, which are not among them.
func (p *Pusher) unseen(f outbox.LetterFilter) (numbers []uint64, err error) {
	for left := f.Limit; ; {
		f.Limit = lettersAtOnce
		if left > 0 {
			f.Limit = min(left, lettersAtOnce)
		}
		page, err := p.box.DeadLetters().List(f)
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			f.After = d.ID
			if d.Reason != outbox.ReasonUndecodable {
				numbers = append(numbers, d.ID)
			}
		}
		if left -= len(page); len(page) < f.Limit || left == 0 {
			return numbers, nil
		}
	}
}

// replay pushes the event of a letter and drops the letter once the outbox has
// taken it.
func (p *Pusher) replay(ctx context.Context, d outbox.DeadLetter) error {
	taken := make(chan error, 1)
	p.pushing.Lock()
	if p.closed.Load() {
		p.pushing.Unlock()
		return errStopped
	}
	p.entries, p.letters, p.now = p.entries[:0], p.letters[:0], time.Now()
	p.scratch = *d.Event
	p.scratch.Replayed = true
	p.route(&p.scratch)
	p.scratch = event.Event{}
	p.hand(batch{entries: p.entries, letters: p.letters, committed: func(err error) { taken <- err }})
	clear(p.entries)
	clear(p.letters)
	p.pushing.Unlock()
	if err := await(ctx, taken); err != nil {
		return err
	}
	_, err := p.box.DeadLetters().Drop(outbox.LetterFilter{ID: d.ID})
	return err
}
