package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
)

// Pack is what one Append wrote.
type Pack struct {
	First   uint64 // number of its first event
	Events  int
	Payload []byte
}

// Reader reads packs in order. It is for one goroutine; readers are independent
// of each other and of Append.
type Reader struct {
	log     *Log
	segment segment
	f       file
	scan    scanner
	bad     *CorruptionError // at which it stands, until Skip
	resume  int64            // offset behind bad; -1: in the next segment
}

// Reader returns a reader whose first pack is the one that holds event number
// from, which is at most Next. An earlier event than First is ErrTrimmed.
// Damage between the beginning of a file and from is not its concern and is
// passed over; damage where from should be is reported by Reader.Next.
func (l *Log) Reader(from uint64) (*Reader, error) {
	if next := l.Next(); from > next {
		return nil, fmt.Errorf("segment: event %d is behind the end of the log, %d", from, next)
	}
	r := &Reader{log: l}
	if err := r.enter(from); err != nil {
		return nil, err
	}
	for {
		h, err := r.scan.peek()
		if err == nil && h.first+uint64(h.events) <= from {
			r.scan.skip(h)
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			off, first, ok := r.scan.find()
			if ok && first <= from {
				r.scan.off, r.scan.next = off, first
				continue
			}
			r.scan.next = max(r.scan.next, from)
		}
		return r, nil
	}
}

// enter opens the segment that holds event number n.
func (r *Reader) enter(n uint64) error {
	l := r.log
	l.mu.Lock()
	segments := slices.Clone(l.segments)
	l.mu.Unlock()
	i := sort.Search(len(segments), func(i int) bool { return segments[i].first > n }) - 1
	if i < 0 {
		return fmt.Errorf("%w: %d, the oldest is %d", ErrTrimmed, n, segments[0].first)
	}
	s := segments[i]
	f, err := l.disk.Open(l.path(s), os.O_RDONLY)
	if err != nil {
		if l.First() > s.first {
			return fmt.Errorf("%w: %d, while it was being looked for", ErrTrimmed, n)
		}
		return fmt.Errorf("segment: %w", err)
	}
	old := r.f
	r.segment, r.f = s, f
	r.scan = scanner{f: f, salt: s.salt, off: headerSize, end: s.size, next: s.first, buf: r.scan.buf[:0]}
	if old != nil {
		return old.Close()
	}
	return nil
}

// extent returns how far the segment may be read now, the event number at that
// point, and whether other segments follow. Of a segment that was trimmed the
// number is that of the oldest event kept.
func (r *Reader) extent() (size int64, next uint64, sealed bool) {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].first >= r.segment.first })
	switch {
	case i == len(l.segments) || l.segments[i].first != r.segment.first:
		return r.scan.end, l.segments[0].first, true
	case i == len(l.segments)-1:
		return l.segments[i].size, l.next, false
	}
	return l.segments[i].size, l.segments[i+1].first, true
}

// Next returns the next pack, whose payload is valid until the next call. It
// returns io.EOF when it has caught up with Append, and may be called again
// later; a *CorruptionError, again and again until Skip is called, where packs
// cannot be read; ErrTrimmed when Trim was quicker; other errors are the disk's,
// and calling again tries again.
func (r *Reader) Next() (Pack, error) {
	for r.bad == nil {
		p, err := r.scan.read()
		if err == nil {
			return p, nil
		}
		size, next, sealed := r.extent()
		var d *damage
		switch {
		case errors.As(err, &d):
			r.scan.end = size
			r.bad = &CorruptionError{File: r.log.path(r.segment), Offset: r.scan.off, First: r.scan.next, Next: next, Reason: d.reason}
			r.resume = size
			if off, first, ok := r.scan.find(); ok {
				r.resume, r.bad.Next = off, first
			}
		case !errors.Is(err, io.EOF):
			return Pack{}, fmt.Errorf("segment: read %s: %w", r.log.path(r.segment), err)
		case size > r.scan.end:
			r.scan.end = size
		case !sealed:
			return Pack{}, io.EOF
		case r.log.First() > r.segment.first:
			if err := r.enter(r.scan.next); err != nil {
				return Pack{}, err
			}
		case r.scan.next != next:
			r.bad = &CorruptionError{File: r.log.path(r.segment), Offset: r.scan.off, First: r.scan.next, Next: next, Reason: "records are missing"}
			r.resume = size
		default:
			if err := r.enter(next); err != nil {
				return Pack{}, err
			}
		}
	}
	return Pack{}, r.bad
}

// Skip goes behind the corruption that Next has reported and returns how many
// events that passes over, for the caller to count. Without one it does nothing.
func (r *Reader) Skip() uint64 {
	if r.bad == nil {
		return 0
	}
	n := r.bad.Events()
	r.scan.off, r.scan.next, r.bad = r.resume, r.bad.Next, nil
	return n
}

// Close gives up the reader's file.
func (r *Reader) Close() error { return r.f.Close() }
