package outbox_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/pusher/outbox"
)

// TestPositionsOnDisk reads what is written, and what earlier versions have written, which
// kept beside a source's position that everything was reported of its sessions.
func TestPositionsOnDisk(t *testing.T) {
	const last = 1<<63 - 1
	for _, tc := range []struct {
		name          string
		written, want []outbox.Position
	}{
		{"complete or not",
			[]outbox.Position{{Source: "s1", Epoch: "e", Seq: 7}, {Source: "s2", Epoch: "e", Seq: 0, Complete: true}, {Source: "s3", Epoch: "e", Seq: last, Complete: true}},
			[]outbox.Position{{Source: "s1", Epoch: "e", Seq: 7}, {Source: "s2", Epoch: "e", Seq: 0, Complete: true}, {Source: "s3", Epoch: "e", Seq: last, Complete: true}}},
		{"of an earlier version",
			[]outbox.Position{{Source: "sessions s2", Epoch: "unknown", Seq: 1}, {Source: "s1", Epoch: "e", Seq: 9}, {Source: "sessions s1", Epoch: "known", Seq: 7}, {Source: "s2", Epoch: "f", Seq: 3}},
			[]outbox.Position{{Source: "s1", Epoch: "e", Seq: 9, Complete: true}, {Source: "s2", Epoch: "f", Seq: 3}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := outbox.DecodePositions(outbox.AppendPositions(nil, tc.written))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
