package segment

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Recovery is what Open found.
type Recovery struct {
	Segments    int
	Bytes       int64
	First, Next uint64 // the oldest event kept, the one to be appended next
	// Cuts are records whose Append never succeeded, as far as the files tell.
	Cuts []Cut
	// Holes are the corruptions that Options.Skip accepted, those in the last file,
	// which readers meet in their turn, and the numbers passed over because of
	// Options.Floor.
	Holes []*CorruptionError
}

// Cut is the end of a file that was cut off: a record that was being written when
// the process ended, or that the disk had reported as failed.
type Cut struct {
	File   string
	Offset int64
	Bytes  int64
}

// Open opens the log in a directory, or begins one there.
//
// It checks each file's header and size and every byte of the last file, which is
// what a crash can have left unfinished; the other files are checked as they are
// read. Damage in the middle of the last file is reported and left to readers, as
// in the others. Errors are *CorruptionError (unless Options.Skip is set), *VersionError
// or those of the disk.
func Open(o Options) (*Log, Recovery, error) {
	if o.SegmentSize <= 0 {
		o.SegmentSize = DefaultSegmentSize
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.disk == nil {
		o.disk = osDisk{}
	}
	l := &Log{options: o, disk: o.disk}
	var found Recovery
	if err := l.open(&found); err != nil {
		return nil, found, errors.Join(err, l.Close())
	}
	found.Segments, found.Bytes, found.First, found.Next = len(l.segments), l.Size(), l.First(), l.next
	return l, found, nil
}

func (l *Log) open(found *Recovery) error {
	if err := l.makeDir(l.options.Dir); err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	if err := l.list(); err != nil {
		return err
	}
	// The process before may have ended between naming a file and making its name
	// durable; what is appended to it now must not vanish with the name.
	if err := l.disk.SyncDir(l.options.Dir); err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	if len(l.segments) == 0 {
		return l.first()
	}
	for i := range l.segments {
		if err := l.link(i, found); err != nil {
			return err
		}
	}
	if err := l.scanLast(found); err != nil {
		return err
	}
	if l.next < l.options.Floor {
		hole := &CorruptionError{
			File: l.path(l.active()), Offset: l.active().size, First: l.next, Next: l.options.Floor,
			Reason: "the log ends before events that are known to have been in it",
		}
		found.hole(l.options.Log, hole)
		l.next = l.options.Floor
		return l.begin()
	}
	return nil
}

// makeDir makes the directory, and those above, unless they exist.
func (l *Log) makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if errors.Is(err, os.ErrNotExist) && filepath.Dir(dir) != dir {
		if err = l.makeDir(filepath.Dir(dir)); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if err != nil {
		return err
	}
	return l.disk.SyncDir(filepath.Dir(dir))
}

// list fills segments from the names in the directory and removes what a crash
// left of files that were being begun.
func (l *Log) list() error {
	entries, err := os.ReadDir(l.options.Dir)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(l.options.Dir, e.Name())
		if strings.HasSuffix(e.Name(), extension+".tmp") {
			if err := l.disk.Remove(path); err != nil {
				return fmt.Errorf("segment: remove an unfinished file: %w", err)
			}
		}
		if !strings.HasSuffix(e.Name(), extension) {
			continue
		}
		first, salt, ok := parseFileName(e.Name())
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("segment: %w", err)
		}
		if !ok || !info.Mode().IsRegular() {
			return fmt.Errorf("segment: %s is no segment of this log; move it elsewhere", path)
		}
		l.segments = append(l.segments, segment{first: first, salt: salt, size: info.Size()})
	}
	slices.SortFunc(l.segments, func(a, b segment) int {
		return cmp.Compare(a.first, b.first)
	})
	for i := 1; i < len(l.segments); i++ {
		if l.segments[i].first == l.segments[i-1].first {
			return fmt.Errorf("segment: %s and %s both begin with event %d; move the one that is not of this log elsewhere",
				l.path(l.segments[i-1]), l.path(l.segments[i]), l.segments[i].first)
		}
	}
	return nil
}

// first begins the log.
func (l *Log) first() error {
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // never fails
	h := header{salt: binary.LittleEndian.Uint32(salt[:]), first: max(1, l.options.Floor)}
	f, err := l.create(h)
	if err != nil {
		return err
	}
	l.next = h.first
	l.start(f, h)
	return nil
}

func (r *Recovery) hole(log *slog.Logger, e *CorruptionError) {
	r.Holes = append(r.Holes, e)
	log.Error("hole in the log", "file", e.File, "offset", e.Offset, "first", e.First, "events", e.Events(), "reason", e.Reason)
}
