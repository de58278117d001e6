package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// link checks the header of segment i and that it is the one that was begun
// behind segment i-1. When the damage is accepted the header is written anew, so
// that it is accepted once and not at every start.
func (l *Log) link(i int, found *Recovery) error {
	s := l.segments[i]
	f, err := l.disk.Open(l.path(s), os.O_RDWR)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	defer f.Close()
	b := make([]byte, headerSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("segment: %w", err)
	}
	h, version, reason := decodeHeader(b[:n])
	if reason == "" && version != Version {
		return &VersionError{File: l.path(s), Version: version}
	}
	bad := &CorruptionError{File: l.path(s), First: s.first, Next: s.first, Reason: reason}
	want := header{salt: s.salt, first: s.first}
	if i > 0 {
		want.prevFirst, want.prevSize = l.segments[i-1].first, l.segments[i-1].size
	}
	switch {
	case reason != "":
	case h.first != s.first || h.salt != s.salt:
		bad.Reason = "the name is not that of the header"
	case i == 0:
		return nil // what was before it has been trimmed
	case h.prevFirst != want.prevFirst:
		bad.Reason = "a segment before this one is missing"
		bad.First = l.endOf(l.segments[i-1])
	case h.prevSize > want.prevSize:
		bad.File, bad.Offset = l.path(l.segments[i-1]), want.prevSize
		bad.Reason = fmt.Sprintf("the file had %d bytes when it was finished", h.prevSize)
		bad.First = l.endOf(l.segments[i-1])
	case h.prevSize < want.prevSize:
		l.segments[i-1].size = h.prevSize
		return l.cut(l.segments[i-1], want.prevSize, found)
	default:
		return nil
	}
	if !l.options.Skip {
		return bad
	}
	found.hole(l.options.Log, bad)
	if _, err := f.WriteAt(want.encode(), 0); err != nil {
		return fmt.Errorf("segment: repair %s: %w", l.path(s), err)
	}
	if s.size < headerSize {
		l.segments[i].size = headerSize
	}
	return f.Datasync()
}

// endOf returns the number behind the last record of s that can be found.
func (l *Log) endOf(s segment) uint64 {
	f, err := l.disk.Open(l.path(s), os.O_RDONLY)
	if err != nil {
		return s.first
	}
	defer f.Close()
	sc := scanner{f: f, salt: s.salt, off: headerSize, end: s.size, next: s.first}
	for {
		if _, err := sc.read(); err == nil {
			continue
		}
		off, first, ok := sc.find()
		if !ok {
			return sc.next
		}
		sc.off, sc.next = off, first
	}
}

// scanLast reads the last segment, cuts off what is unfinished at its end and
// makes it the active one.
func (l *Log) scanLast(found *Recovery) error {
	s := l.active()
	f, err := l.disk.Open(l.path(s), os.O_RDWR)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	l.f = f
	sc := scanner{f: f, salt: s.salt, off: headerSize, end: s.size, next: s.first}
	holes, last := false, int64(0)
	for {
		at := sc.off
		_, err := sc.read()
		if err == nil {
			last = at
			continue
		}
		if errors.Is(err, io.EOF) {
			break
		}
		var d *damage
		if !errors.As(err, &d) {
			return fmt.Errorf("segment: read %s: %w", l.path(s), err)
		}
		// A pack is written only after the one before it was synced. So a bad
		// record was being written when the process ended if it is the last one,
		// and has been damaged since if there is another behind it.
		off, first, ok := sc.find()
		if !ok {
			break
		}
		// Readers meet it there, as in any other file. Nothing is lost by going on
		// behind it, and to refuse would lose what comes meanwhile.
		found.hole(l.options.Log, &CorruptionError{File: l.path(s), Offset: sc.off, First: sc.next, Next: first, Reason: d.reason})
		sc.off, sc.next, holes = off, first, true
	}
	l.next = sc.next
	if l.next == s.first {
		sc.off, last, holes = headerSize, 0, false // what there is holds no event
	}
	l.segments[len(l.segments)-1].size = sc.off
	if sc.off < s.size {
		if err := l.cut(l.active(), s.size, found); err != nil {
			return err
		}
	}
	if err := l.settle(last, sc.off); err != nil {
		return fmt.Errorf("segment: write the last record of %s again: %w", l.path(s), err)
	}
	if holes {
		return l.begin() // so that the next start does not meet them again
	}
	return nil
}

// settle writes the record from at to end once more and syncs it, and keeps the
// bytes of the last page. A process whose sync failed leaves pages behind that
// the next one reads as if they were on disk. It can only be this record: nothing
// is written behind one that was not synced.
func (l *Log) settle(at, end int64) error {
	page := int64(os.Getpagesize())
	at -= at % page
	l.buf = make([]byte, end-at)
	if _, err := l.f.ReadAt(l.buf, at); err != nil {
		return err
	}
	if _, err := l.f.WriteAt(l.buf, at); err != nil {
		return err
	}
	l.keepTail(end)
	return l.f.Datasync()
}

// cut shortens the file of s, which has size bytes, to those that count.
func (l *Log) cut(s segment, size int64, found *Recovery) error {
	f, err := l.disk.Open(l.path(s), os.O_RDWR)
	if err == nil {
		err = errors.Join(f.Truncate(s.size), f.Datasync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("segment: cut off what is unfinished: %w", err)
	}
	c := Cut{File: l.path(s), Offset: s.size, Bytes: size - s.size}
	found.Cuts = append(found.Cuts, c)
	l.options.Log.Warn("unfinished record cut off", "file", c.File, "offset", c.Offset, "bytes", c.Bytes)
	return nil
}
