//go:build linux

package prosody_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a stop, a crash and a damaged file do to the sequence.
func TestRestart(t *testing.T) {
	t.Parallel()
	top := t // what a subtest connects outlives it
	s := start(t, "")
	file := filepath.Join(s.Dir(), "data", "event_feed.dat")
	alice := s.Login(t, "alice", "r1")
	p := attach(t, s)
	p.ack = 0
	p.hello()
	epoch := p.epoch
	p.resumeNothing()
	alice.Presence()
	chat(alice, "a", 3)
	for range 5 {
		p.event()
	}
	p.acknowledge(3)

	t.Run("clean", func(t *testing.T) {
		probe(alice, "leave", "") // as BOSH does, a session that nobody ends
		s.Stop()
		p.closed()
		s.Start()
		alice = s.Login(top, "alice", "r1")
		p = attach(top, s)
		if h := p.hello().Hello; h.Epoch != epoch || h.First != 4 || h.Next != 11 || h.PrevEpoch != "" {
			t.Errorf("hello %+v; epoch %s should go on with 4 to 10", *h, epoch)
		}
		p.resume(epoch, 3)
		var got []received
		for range 7 {
			got = append(got, p.event())
		}
		if diff := diffOf([]string{
			"message-sent alice@localhost/r1 to=dave@localhost reached=false <message a1 headline>",
			"message-sent alice@localhost/r1 to=dave@localhost reached=false <message a2 headline>",
			"offline alice@localhost/r1 <presence unavailable>",
			"session-end alice@localhost/r1 reason=Received SIGTERM",
			"offline ghost@localhost/bosh <presence unavailable>",
			"session-end ghost@localhost/bosh",
			"session-start alice@localhost/r1",
		}, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), "<message") {
			t.Errorf("the file still has events, or is gone: %v", err)
		}
	})

	t.Run("clean, with no component", func(t *testing.T) {
		p.drop()
		chat(alice, "b", 2)
		s.Restart()
		s.Restart()
		p = attach(top, s)
		p.hello()
		p.resume(epoch, 10)
		same(t, "kept over two restarts", take(p, 3), "b0 b1 ")
	})

	t.Run("an old file, and a component that sees it", func(t *testing.T) {
		p.acknowledge(p.last)
		s.Stop()
		s.Start()
		p = attach(top, s)
		p.hello()
		p.resumeNothing()
		h := p.hello().Hello
		if h.Epoch == epoch || h.PrevEpoch != epoch || h.Clean != "false" || h.First != 1 {
			t.Errorf("hello %+v to a component that has nothing of epoch %s, though it has acknowledged it", *h, epoch)
		}
		epoch = h.Epoch
		p.resumeNothing()
	})

	t.Run("crash", func(t *testing.T) {
		alice = s.Login(top, "alice", "r1")
		s.Kill()
		s.Start()
		p = attach(top, s)
		h := p.hello().Hello
		if h.Epoch == epoch || h.PrevEpoch != epoch || h.Clean != "false" || h.PrevLast != "" || h.First != 1 || h.Next != 1 {
			t.Errorf("hello %+v after a crash in epoch %s", *h, epoch)
		}
		epoch = h.Epoch
		p.resume(h.PrevEpoch, 1)
		p.last = 0
		alice = s.Login(top, "alice", "r1")
		same(t, "first", p.event().Event.Kind, "session-start")
	})

	t.Run("a file that is cut short", func(t *testing.T) {
		chat(alice, "c", 3)
		s.Stop()
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), "c2") {
			t.Fatalf("c2 is not in the file: %v", err)
		}
		if err := os.WriteFile(file, text[:len(text)-30], 0o644); err != nil {
			t.Fatal(err)
		}
		s.Start()
		p = attach(top, s)
		h := p.hello().Hello
		if h.Epoch == epoch || h.PrevEpoch != epoch || h.Clean != "false" || h.Next != 1 {
			t.Errorf("hello %+v with a damaged file of epoch %s", *h, epoch)
		}
	})

	t.Run("a file that is none", func(t *testing.T) {
		s.Stop()
		if err := os.WriteFile(file, []byte("\x00\xff<>"), 0o644); err != nil {
			t.Fatal(err)
		}
		s.Start()
		p = attach(top, s)
		if h := p.hello().Hello; h.PrevEpoch != "" || h.Next != 1 || h.Source != "localhost" {
			t.Errorf("hello %+v with a useless file", *h)
		}
	})
}
