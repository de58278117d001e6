package translator_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/translator"
)

const (
	benchName = "events.example.org"
	benchHost = "example.org"
)

// corpus returns the messages of clients in testdata/corpus.xml, between 330
// and 1547 bytes each, as a server forwards them to the address given.
func corpus(tb testing.TB, target string) [][]byte {
	tb.Helper()
	text, err := os.ReadFile("testdata/corpus.xml")
	if err != nil {
		tb.Fatal(err)
	}
	var frames [][]byte
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "<message")
		if !ok || !strings.Contains(line, "from='romeo@") || strings.Contains(line, "<forwarded") {
			continue
		}
		// Both users on one host, where service_log leaves the direction open.
		rest = strings.ReplaceAll(rest, "juliet@gw.example.org", "juliet@"+benchHost)
		frames = append(frames, []byte("<message from='"+benchHost+"' to='"+target+"'><forwarded xmlns='urn:xmpp:forward:0'>"+
			"<message xmlns='jabber:client'"+rest+"</forwarded></message>"))
	}
	if len(frames) != 9 {
		tb.Fatalf("%d messages in the corpus, want 9", len(frames))
	}
	return frames
}

func benchParts() (*stanza.Decoder, *trust.Judge, *translator.Translator) {
	hosts := []string{benchHost}
	return stanza.NewDecoder(stanza.Limits{}),
		trust.New(trust.Options{Component: benchName, Forwarders: hosts, Hosts: hosts}),
		translator.New(translator.Options{Hosts: hosts, Component: benchName})
}

// A stanza may cost 3 allocations on its whole way, of which the decoder needs one.
func TestWholeWayAllocations(t *testing.T) {
	for _, target := range []string{"out@" + benchName, benchName} {
		frames := corpus(t, target)
		decoder, feeds, tr := benchParts()
		env := new(stanza.Envelope)
		events := make([]event.Event, 0, 2)
		now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
		way := func(frame []byte) {
			if err := decoder.Decode(frame, env); err != nil {
				t.Fatal(err)
			}
			now = now.Add(time.Hour)
			s := feeds.Stanza(env, now)
			if s == nil {
				t.Fatalf("no fact: %s", frame)
			}
			if events = tr.Translate(s, events[:0]); len(events) != 2 {
				t.Fatalf("%d events, want 2", len(events))
			}
		}
		for _, frame := range frames {
			way(frame)
		}
		next := 0
		got := testing.AllocsPerRun(100, func() {
			frame := frames[next%len(frames)]
			next++
			// Each message is a new one: its last id begins with other letters.
			id := frame[bytes.LastIndex(frame, []byte(" id='"))+len(" id='"):]
			id[0], id[1] = 'a'+byte(next/26), 'a'+byte(next%26)
			way(frame)
		})
		t.Logf("%v allocations to %s", got, target)
		if got > 3 {
			t.Errorf("%v allocations for a stanza to %s, want at most 3", got, target)
		}
	}
}

// BenchmarkTranslate is the way from stanza to events, both of a message.
func BenchmarkTranslate(b *testing.B) {
	for _, bc := range []struct{ name, target string }{
		{"firewall", "out@" + benchName}, {"service_log", benchName}, {"event-feed", "out@" + benchName},
	} {
		b.Run(bc.name, func(b *testing.B) {
			decoder, feeds, tr := benchParts()
			now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
			var stanzas []trust.Fact
			size := 0
			for _, frame := range corpus(b, bc.target) {
				var env stanza.Envelope
				if err := decoder.Decode(frame, &env); err != nil {
					b.Fatal(err)
				}
				stanzas = append(stanzas, *feeds.Stanza(&env, now))
				size += len(frame)
			}
			events := make([]event.Event, 0, 2)
			b.SetBytes(int64(size / len(stanzas)))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s := &stanzas[i%len(stanzas)]
				now = now.Add(time.Hour)
				s.Received = now
				if bc.name == "event-feed" {
					s.Feed = trust.EventFeed
					s.Report = stanza.Report{Kind: stanza.MessageSent, Source: "xmpp1", Epoch: "67401c55-9f", Seq: uint64(i + 1), User: s.From, At: now}
				}
				if events = tr.Translate(s, events[:0]); len(events) != 2 {
					b.Fatalf("%d events", len(events))
				}
			}
		})
	}
}

// BenchmarkWholeWay is the way from a frame's bytes to events.
func BenchmarkWholeWay(b *testing.B) {
	frames := corpus(b, "out@"+benchName)
	size := 0
	for _, frame := range frames {
		size += len(frame)
	}
	decoder, feeds, tr := benchParts()
	env := new(stanza.Envelope)
	events := make([]event.Event, 0, 2)
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	b.SetBytes(int64(size / len(frames)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := decoder.Decode(frames[i%len(frames)], env); err != nil {
			b.Fatal(err)
		}
		events = tr.Translate(feeds.Stanza(env, now), events[:0])
	}
}

// BenchmarkSessions is a session that is bound, comes online and ends.
func BenchmarkSessions(b *testing.B) {
	_, _, tr := benchParts()
	s := trust.Fact{Feed: trust.EventFeed, Host: benchHost, Received: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)}
	s.From, s.Raw = "alice@"+benchHost+"/phone", "<presence xmlns='jabber:client' from='alice@example.org/phone'/>"
	s.Report = stanza.Report{Source: "xmpp1", Epoch: "67401c55-9f", User: s.From, At: s.Received}
	events := make([]event.Event, 0, 2)
	b.ReportAllocs()
	for b.Loop() {
		for _, fact := range [...]stanza.ReportKind{stanza.SessionStart, stanza.SessionOnline, stanza.SessionOffline, stanza.SessionEnd} {
			s.Report.Kind = fact
			s.Report.Seq++
			s.Kind, s.Type = 0, ""
			switch fact {
			case stanza.SessionOnline:
				s.Kind = stanza.Presence
			case stanza.SessionOffline:
				s.Kind, s.Type = stanza.Presence, "unavailable"
			}
			events = tr.Translate(&s, events[:0])
		}
	}
}
