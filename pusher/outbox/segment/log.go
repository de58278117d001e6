// Package segment is an append-only log of packs of events in files that are
// removed as a whole once nobody needs them.
//
// What Append has returned without error is on disk and stays readable. What
// cannot be read is never passed over silently: it is reported with its file,
// place and event numbers, and only the caller can decide to go on without it.
// docs/decisions/03-segment-log.md says why it is not a library.
package segment

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// DefaultSegmentSize is the size at which a new file is begun unless Options say
// otherwise: small enough to free disk space soon, large enough that beginning a
// file, two syncs, costs nothing.
const DefaultSegmentSize = 64 << 20

// MaxPayload is the largest payload of a pack in bytes.
const MaxPayload = 256 << 20

// Options say where a Log lives.
type Options struct {
	// Dir is created if need be, for the owner only. One process at a time may
	// have it open; the caller sees to that.
	Dir string
	// SegmentSize is the size in bytes that a file does not exceed, unless one
	// pack alone does; 0: DefaultSegmentSize.
	SegmentSize int64
	// Floor is a number that the next event must not be below, such as the
	// furthest cursor kept elsewhere: a log that lost its end would give numbers
	// twice, and their readers would take new events for settled ones.
	Floor uint64
	// Skip opens the log in spite of corruption. The holes are listed in Recovery
	// and readers still stop at each; see Reader.Skip.
	Skip bool
	// Log is told what recovery and the disk do; nil: nobody.
	Log *slog.Logger

	disk disk // tests put a failing one here
}

// segment is one file of the log.
type segment struct {
	first uint64
	salt  uint32
	size  int64 // of what is durable
}

// Log is the log. Append, Rotate and Close belong to one goroutine; everything
// else is safe for concurrent use with them and with itself.
type Log struct {
	options Options
	disk    disk

	trim     sync.Mutex // held by Trim
	mu       sync.Mutex
	segments []segment // ascending; the last one is appended to
	next     uint64

	// Of the goroutine that appends.
	f       file
	buf     []byte // the bytes of the last, partly filled page, then the record
	tail    int    // how many bytes of buf are the former
	failed  bool   // a sync or taking back failed: what the disk holds is unknown
	sealing bool   // a new segment has to be begun before anything else
}

// Append writes one pack and returns the number of its first event. The pack is
// on disk when the error is nil; events, at least one and at most one for each
// byte, are numbered consecutively.
//
// On an error nothing was appended and no reader will see the pack; Append may be
// called again at once or later, when the disk has room again. Only if the
// process ends before that, and only if the disk did take the pack that it
// reported as failed, is the pack there after the next Open.
//
// A sync that failed leaves open what is on disk, and the kernel reports it only
// once. So that file is not appended to again: the page that the failed pack
// shared with earlier ones is written anew and synced, and the log goes on in a
// new file. Until both succeed Append fails.
func (l *Log) Append(payload []byte, events int) (first uint64, err error) {
	switch {
	case l.f == nil:
		return 0, ErrClosed
	case len(payload) > MaxPayload:
		return 0, fmt.Errorf("segment: pack of %d bytes exceeds the limit of %d", len(payload), MaxPayload)
	case events < 1 || events > len(payload):
		return 0, fmt.Errorf("segment: a pack of %d bytes cannot hold %d events", len(payload), events)
	}
	active := l.active()
	need := int64(recordSize + len(payload))
	if l.failed || l.sealing || active.size > headerSize && active.size+need > l.options.SegmentSize {
		if err := l.begin(); err != nil {
			return 0, err
		}
		active = l.active()
	}
	r := record{length: uint32(len(payload)), events: uint32(events), first: l.next, sum: checksum(active.salt, payload)}
	l.buf = append(r.append(l.buf[:l.tail], active.salt), payload...)
	if _, err = l.f.WriteAt(l.buf[l.tail:], active.size); err == nil {
		if err = l.f.Datasync(); err != nil {
			l.failed = true
		}
	}
	if err != nil {
		if l.f.Truncate(active.size) != nil {
			l.failed = true
		}
		return 0, fmt.Errorf("segment: append to %s: %w", l.path(active), err)
	}
	active.size += need
	l.keepTail(active.size)
	first = l.next
	l.mu.Lock()
	l.segments[len(l.segments)-1] = active
	l.next += uint64(events)
	l.mu.Unlock()
	return first, nil
}

// active returns the segment that is appended to. Trim may be replacing the list
// at the same time.
func (l *Log) active() segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segments[len(l.segments)-1]
}

// keepTail keeps the bytes of the page that the file ends in, of which buf holds
// all.
func (l *Log) keepTail(size int64) {
	l.tail = min(int(size%int64(os.Getpagesize())), len(l.buf))
	copy(l.buf, l.buf[len(l.buf)-l.tail:])
	if cap(l.buf) > 8<<20 && len(l.buf) < 1<<20 {
		l.buf = append(make([]byte, 0, 1<<20), l.buf[:l.tail]...)
	}
}

// Rotate begins a new file, so that Trim can remove the present one once its
// events are settled. It does nothing while the present one is empty.
func (l *Log) Rotate() error {
	if l.f == nil {
		return ErrClosed
	}
	if l.active().size == headerSize {
		return nil
	}
	return l.begin()
}

// begin seals the active segment, after making sure of it if it is in doubt, and
// begins the next.
func (l *Log) begin() error {
	active := l.active()
	if l.failed {
		_, err := l.f.WriteAt(l.buf[:l.tail], active.size-int64(l.tail))
		err = errors.Join(err, l.f.Truncate(active.size), l.f.Datasync())
		if err != nil {
			return fmt.Errorf("segment: write the end of %s again after a failure: %w", l.path(active), err)
		}
		l.options.Log.Warn("segment written again after a failed sync", "file", l.path(active), "bytes", active.size)
		l.failed = false
		if active.size == headerSize {
			return nil // the next one would have the same name
		}
	}
	// Once the next segment may exist, with this one's size in its header, this
	// one must not grow, whatever becomes of the attempt.
	l.sealing = true
	h := header{salt: active.salt, first: l.next, prevFirst: active.first, prevSize: active.size}
	f, err := l.create(h)
	if err != nil {
		return err
	}
	_ = l.f.Close() // synced; closing has nothing left that could fail
	l.start(f, h)
	return nil
}

// start makes f, which has only its header, the active segment.
func (l *Log) start(f file, h header) {
	l.f, l.sealing = f, false
	l.buf = append(l.buf[:0], h.encode()...)
	l.keepTail(headerSize)
	l.mu.Lock()
	l.segments = append(l.segments, segment{first: h.first, salt: h.salt, size: headerSize})
	l.mu.Unlock()
}

// create writes a segment without records. It has its name only once its header
// is on disk, so that no file with half a header is ever met.
func (l *Log) create(h header) (file, error) {
	path := filepath.Join(l.options.Dir, fileName(h.first, h.salt))
	f, err := l.disk.Open(path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, fmt.Errorf("segment: begin a file: %w", err)
	}
	if _, err = f.WriteAt(h.encode(), 0); err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = l.disk.Rename(path+".tmp", path)
	}
	if err == nil {
		err = l.disk.SyncDir(l.options.Dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("segment: begin %s: %w", path, err), f.Close())
	}
	return f, nil
}

// Trim removes the files that hold only events before the given number and
// returns the bytes freed. The file being appended to is always kept.
func (l *Log) Trim(before uint64) (freed int64, err error) {
	l.trim.Lock()
	defer l.trim.Unlock()
	for {
		l.mu.Lock()
		if len(l.segments) < 2 || l.segments[1].first > before {
			l.mu.Unlock()
			return freed, nil
		}
		oldest := l.segments[0]
		l.segments = slices.Clone(l.segments[1:])
		l.mu.Unlock()
		// Removing a large file takes a while, in which others go on. One by one:
		// were a later removal to survive a crash without an earlier one, a
		// segment would be missing in the middle.
		err := l.disk.Remove(l.path(oldest))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			l.mu.Lock()
			l.segments = append([]segment{oldest}, l.segments...)
			l.mu.Unlock()
			return freed, fmt.Errorf("segment: trim: %w", err)
		}
		freed += oldest.size
		if err := l.disk.SyncDir(l.options.Dir); err != nil {
			return freed, fmt.Errorf("segment: trim: %w", err)
		}
	}
}

// Next returns the number that the next event will get.
func (l *Log) Next() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// First returns the number of the oldest event kept, Next when there is none.
func (l *Log) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segments[0].first
}

// Size returns how many bytes the files hold.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// Surplus returns the number that Trim has to be called with for the files to hold at
// most size bytes, or the most that it can do for that.
func (l *Log) Surplus(size int64) (before uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.segments) - 1; i > 0; i-- {
		if size -= l.segments[i].size; size < l.segments[i-1].size {
			return l.segments[i].first
		}
	}
	return l.segments[0].first
}

// Close closes the log. All that was appended is on disk already; readers have
// to be closed by themselves.
func (l *Log) Close() error {
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

func (l *Log) path(s segment) string {
	return filepath.Join(l.options.Dir, fileName(s.first, s.salt))
}
