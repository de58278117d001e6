package outbox

import (
	"io"
	"time"

	"eventpusher/event"
)

// This file is for engines in other packages: they keep dead letters, positions
// and progress in the same form as Embedded.

// AppendLetter encodes a dead letter without its number.
func AppendLetter(dst []byte, d *DeadLetter) []byte { return appendLetter(dst, d) }

// DecodeLetter decodes what AppendLetter wrote; number becomes its ID.
func DecodeLetter(number uint64, b []byte) (DeadLetter, error) {
	return decodeLetter(letterKey(number), b)
}

// AppendPositions encodes positions.
func AppendPositions(dst []byte, list []Position) []byte { return appendPositions(dst, list) }

// DecodePositions decodes what AppendPositions wrote.
func DecodePositions(b []byte) ([]Position, error) {
	d := NewDecoder(b)
	list := d.positions()
	return list, d.Err()
}

// AppendCut encodes how far a reader has come.
func AppendCut(dst []byte, c *Cut) []byte {
	r := readerRecord{Progress: c.Progress}
	return r.append(dst)
}

// DecodeCut decodes what AppendCut wrote.
func DecodeCut(b []byte) (Cut, error) {
	r, err := decodeReader(b)
	return Cut{Progress: r.Progress}, err
}

// DecodeEvent decodes what event.AppendBinary wrote, and nothing behind it.
func DecodeEvent(b []byte) (*event.Event, error) { return decodeEvent(b) }

// Numbers calls f with the number of every reader that wants the event.
func (t Subscribers) Numbers(f func(n int)) { t.each(f) }

// LockDir takes a directory for this process until the result is closed; it waits
// for at most timeout for another one, and then returns a *LockedError.
func LockDir(dir string, timeout time.Duration) (io.Closer, error) {
	f, err := lockDir(dir, timeout)
	if err != nil {
		return nil, err
	}
	return f, nil
}
