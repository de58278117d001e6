package http

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/backends/gather"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

const (
	// maxGathering is how many lanes bring single events for one batch.
	maxGathering = 128
	// hopelessSenders are how many senders' events a receiver refuses one by one, and takes
	// none, before the rest of a batch is not tried: so many pause a destination.
	hopelessSenders = 3
	// enoughDecided is after how many decided events their share of refused ones says how to
	// search for more.
	enoughDecided = 8
)

// item is one event on its way to a batch.
type item struct {
	id     string
	sender jid.JID
	body   []byte
}

// batches makes b post several events in one request.
func (b *Backend) batches(o *config.HTTPDestination) error {
	var ok bool
	if b.batchType, ok = form.BatchType(b.chosen.Form); !ok {
		return errors.New("http: batch_size: the format cannot be written in batches")
	}
	requests := b.limits.Lanes
	b.limits.Lanes = max(requests, min(o.BatchSize, maxGathering))
	b.limits.Batch = min(requests*o.BatchSize/b.limits.Lanes, o.BatchSize)
	b.calls = gather.New(gather.Options[item]{Linger: o.BatchLinger, Most: o.BatchSize, Bytes: int(o.BatchBytes), Calls: requests, Send: b.send})
	return nil
}

// publishBatches writes the events and has them sent together with those of other lanes.
func (b *Backend) publishBatches(ctx context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	entries := make([]gather.Entry[item], 0, len(batch))
	epoch := strconv.FormatUint(backends.Epoch(ctx), 10) // which is a header of the request
	for i := range batch {
		e := &batch[i]
		m, err := b.chosen.Form.Write(e)
		if err != nil {
			errs[i] = backends.Permanent(fmt.Errorf("http: %w", err))
			continue
		}
		entries = append(entries, gather.Entry[item]{Index: i, Key: epoch, Size: len(m.Body) + len(","), Value: item{e.ID, e.Sender(), m.Body}})
	}
	b.calls.Publish(ctx, entries, errs)
	return errs
}

// send posts a batch, and finds the events for which the receiver refuses it.
func (b *Backend) send(ctx context.Context, items []item, decided func(int, error)) {
	s := search{b: b, decided: decided}
	s.deliver(ctx, items, 0)
}

// search is the delivery of one batch. If the receiver refuses the batch for what is in it, each
// half is posted by itself, and so on, so that an event that is refused spoils no other.
type search struct {
	b        *Backend
	decided  func(i int, err error)
	accepted bool
	refused  []jid.JID // senders of single events that were refused, and are to be kept
	ended    error     // why the rest is not tried
	done     int       // events that are decided
	bad      int       // events of them that were refused alone
}

// deliver delivers items, of which the first has that index, and says of each what has become of
// it as soon as that is known: the search for the rest may take longer than the caller waits.
func (s *search) deliver(ctx context.Context, items []item, first int) {
	err := s.ended
	if err == nil {
		err = s.b.post(ctx, batchID(items), "", s.b.join(items))
	}
	switch {
	case err == nil:
		s.accepted = true
		s.all(len(items), first, nil)
	case s.ended != nil || len(items) > 1 && !divisible(err):
		s.ended = err
		s.all(len(items), first, err)
	case len(items) == 1:
		s.bad++
		s.all(1, first, err)
		s.note(items[0].sender, err)
	case s.done >= enoughDecided && s.bad >= s.done/2:
		// Halves would most likely be refused too: n requests instead of up to 2n.
		for i := range items {
			s.deliver(ctx, items[i:i+1], first+i)
		}
	default:
		half := len(items) / 2
		s.deliver(ctx, items[:half], first)
		s.deliver(ctx, items[half:], first+half)
	}
}

// all says the same of n items.
func (s *search) all(n, first int, err error) {
	s.done += n
	for i := range n {
		s.decided(first+i, err)
	}
}

// note counts the refusal of a single event. A receiver that refuses the events of several
// senders and takes none refuses everything: it is spared the rest of the batch.
func (s *search) note(sender jid.JID, err error) {
	reason := backends.Reason(err)
	if reason == "permanent" || reason == "too_large" { // a dead letter, which takes proof for each event
		return
	}
	if !divisible(err) {
		s.ended = err
		return
	}
	if !slices.Contains(s.refused, sender) {
		s.refused = append(s.refused, sender)
	}
	if !s.accepted && len(s.refused) >= hopelessSenders {
		s.ended = err
	}
}

// divisible reports whether an error of a batch may be about one of its events.
func divisible(err error) bool {
	var paused *backends.PausedError
	reason := backends.Reason(err)
	return reason == "permanent" || reason == "too_large" || errors.As(err, &paused) && paused.OfEvent || errors.As(err, new(*brokenError))
}

// batchID is the id of the request: that of the event, or one that is the same whenever the same
// events are sent together.
func batchID(items []item) string {
	if len(items) == 1 {
		return items[0].id
	}
	h := sha256.New()
	for i := range items {
		h.Write([]byte(items[i].id + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// join writes items as one JSON array.
func (b *Backend) join(items []item) *form.Message {
	size := len("[]") + len(items)
	for i := range items {
		size += len(items[i].body)
	}
	body := append(make([]byte, 0, size), '[')
	for i := range items {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, items[i].body...)
	}
	return &form.Message{ContentType: b.batchType, Body: append(body, ']')}
}
