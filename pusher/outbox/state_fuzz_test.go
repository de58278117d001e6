package outbox

import (
	"bytes"
	"testing"
	"time"

	"eventpusher/event"
)

// FuzzState: records of state.db can be damaged in any way. Each is refused or read, and what
// is read can be written and read again.
func FuzzState(f *testing.F) {
	e := event.Event{ID: "1", Kind: event.Chat, From: "alice@example.org", To: "bob@example.org", User: "alice@example.org", Body: "Hi", HasBody: true, Time: time.Unix(1_700_000_000, 0)}
	f.Add(appendLetter(nil, &DeadLetter{Event: &e, Backend: "b", Reason: "permanent", Err: "no", Attempts: 3, Accepted: e.Time, Died: e.Time}))
	f.Add(event.AppendBinary(appendParkedHead(nil, e.Time, 2, e.Key()), &e))
	f.Add((&readerRecord{id: 1, Progress: Progress{Floor: 3, Top: 9, Pending: []uint64{5, 7}}, done: 4}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := decodeLetter(letterKey(7), b); err == nil {
			again, err := decodeLetter(letterKey(7), appendLetter(nil, &d))
			if err != nil || !bytes.Equal(appendLetter(nil, &again), appendLetter(nil, &d)) {
				t.Errorf("a dead letter became another one: %v", err)
			}
		}
		if r, err := decodeReader(b); err == nil {
			again, err := decodeReader(r.append(nil))
			if err != nil || !bytes.Equal(again.append(nil), r.append(nil)) {
				t.Errorf("the record of a backend became another one: %v", err)
			}
			if len(r.Pending) > len(b) {
				t.Errorf("%d bytes became %d numbers", len(b), len(r.Pending))
			}
		}
		if _, _, key, encoded, err := parkedHead(b); err == nil {
			if len(key)+len(encoded) > len(b) {
				t.Errorf("%d bytes became a key of %d and an event of %d", len(b), len(key), len(encoded))
			}
			_, _ = decodeEvent(encoded)
		}
	})
}
