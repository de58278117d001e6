package outbox

import (
	"errors"
	"fmt"
	"io"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox/segment"
)

// hand gives the reader a pack that has just been appended. It reports whether there may
// be more to take.
func (r *embeddedReader) hand(first, next uint64, accepted time.Time, entries []Entry, keys []uint64, sizes []int) bool {
	bit := int(r.id)
	r.mu.Lock()
	defer r.mu.Unlock()
	mine := 0
	for i := range entries {
		if entries[i].Subscribers.Has(bit) {
			mine++
		}
	}
	r.appended += uint64(mine)
	r.remaining += mine
	caughtUp := r.head == r.tail
	r.tail = next
	if !caughtUp || mine > 0 && r.full() {
		if r.halfEmpty() {
			signal(r.wake)
		}
		return caughtUp // the window is full, and Take is what makes room
	}
	for i := range entries {
		if entries[i].Subscribers.Has(bit) {
			r.admit(first+uint64(i), entries[i].Event, keys[i], sizes[i], accepted)
		}
	}
	r.head, r.dirty = next, true
	return mine > 0
}

// feed fills the window from the log whenever the reader has fallen behind and
// there is room again.
func (r *embeddedReader) feed() {
	defer close(r.fed)
	f := feeder{r: r}
	defer f.close()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-r.engine.closing:
			return
		case <-r.closing:
			return
		case <-r.wake:
		case <-retry.C:
		}
		for r.open() {
			again, err := f.refill()
			if err != nil {
				if r.failure.Set(err) {
					r.engine.log.Error("the events that wait for a backend cannot be read; it gets nothing until they can", "backend", r.backend, "err", err)
				}
				f.close()
				retry.Reset(feedPause)
				break
			}
			if !again {
				break
			}
		}
	}
}

// feedPause is how long feed waits after an error before it tries again.
const feedPause = 5 * time.Second

// open reports whether neither the reader nor the engine is being closed.
func (r *embeddedReader) open() bool {
	select {
	case <-r.engine.closing:
		return false
	case <-r.closing:
		return false
	default:
		return true
	}
}

// feeder reads packs for one reader.
type feeder struct {
	r   *embeddedReader
	log *segment.Reader // nil: to be opened
	pos uint64          // the event that log comes to next
}

func (f *feeder) close() {
	if f.log != nil {
		_ = f.log.Close() // only read from
		f.log = nil
	}
}

// stepOver is how many events are read and thrown away rather than opening the
// log anew, which has to look for its place.
const stepOver = 20_000

// seek makes the pack with the given event the next one.
func (f *feeder) seek(number uint64) (err error) {
	if f.log != nil && (number < f.pos || number-f.pos > stepOver) {
		f.close()
	}
	if f.log == nil {
		f.log, err = f.r.engine.seg.Reader(number)
		f.pos = number
	}
	return err
}

// refill reads one pack into the window and reports whether it should be called
// again at once.
func (f *feeder) refill() (again bool, err error) {
	r := f.r
	r.mu.Lock()
	from, ok := r.head, r.behind() && !r.full()
	caughtUp := !r.behind()
	r.mu.Unlock()
	if !ok {
		if caughtUp && f.log != nil && f.pos < r.engine.seg.First() {
			f.close() // its file is gone, and must give its space back
		}
		return false, nil
	}
	if err := f.seek(from); err != nil {
		if first := r.engine.seg.First(); errors.Is(err, segment.ErrTrimmed) && r.engine.o.SkipCorrupt {
			f.passOver(&segment.CorruptionError{First: from, Next: first, Reason: "files are missing"}, from)
			return true, nil
		}
		return false, err
	}
	p, err := f.log.Next()
	var corrupt *segment.CorruptionError
	switch {
	case errors.As(err, &corrupt) && r.engine.o.SkipCorrupt:
		f.log.Skip()
		f.passOver(corrupt, from)
		return true, nil
	case errors.Is(err, io.EOF):
		return false, fmt.Errorf("outbox: the log ends before event %d", from)
	case err != nil:
		return false, err
	}
	next := p.First + uint64(p.Events)
	f.pos = next
	if next <= from {
		return true, nil
	}
	accepted, list, err := f.decode(p, from)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	if r.head == from {
		for i := range list {
			a := &list[i]
			r.admit(a.Number, a.Event, a.Key, a.Bytes, accepted)
		}
		r.arrived(next)
	}
	r.mu.Unlock()
	r.failure.Set(nil)
	r.notify()
	return true, nil
}

// decode returns the reader's events of a pack, from the given number on.
func (f *feeder) decode(p segment.Pack, from uint64) (accepted time.Time, list []Admission, err error) {
	r := f.r
	pack, err := readPack(p.Payload)
	if err != nil {
		return accepted, nil, fmt.Errorf("outbox: pack of event %d: %w", p.First, err)
	}
	for number := p.First; pack.events > 0; number++ {
		ids, encoded, err := pack.next()
		var e *event.Event
		if err == nil && number >= from && ids.Has(int(r.id)) {
			e, err = decodeEvent(encoded)
		}
		if err != nil {
			return accepted, nil, fmt.Errorf("outbox: event %d: %w", number, err)
		}
		if e != nil {
			list = append(list, Admission{number, e, KeyHash(r.engine.seed, e), Size(e)})
		}
	}
	return pack.header.accepted, list, nil
}

// passOver goes on behind what cannot be read, and counts it.
func (f *feeder) passOver(c *segment.CorruptionError, from uint64) {
	r := f.r
	r.engine.log.Error("events cannot be read and are passed over", "backend", r.backend, "file", c.File,
		"offset", c.Offset, "first", c.First, "events", c.Events(), "reason", c.Reason)
	f.pos = c.Next
	r.mu.Lock()
	if c.Next > from && r.head == from {
		r.lost += c.Next - from
		r.arrived(c.Next)
	}
	r.mu.Unlock()
	r.touched(false, false)
	r.notify()
}

// arrived moves the head forward to next.
func (r *embeddedReader) arrived(next uint64) {
	r.Window.arrived(next)
	r.tail = max(r.tail, next)
	r.settleCount()
}
