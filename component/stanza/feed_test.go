package stanza

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/jid"
)

const (
	feedNS  = ` xmlns='urn:eventpusher:feed:1'`
	feedOut = `<message from='x' to='ev.x'>`
	names   = feedNS + ` source='s1' epoch='e1'`
	sent    = `<event` + names + ` seq='9' kind='message-sent' user='A@x/r' to='b@x' t='1732253277.123'/>`
)

var (
	at      = time.UnixMilli(1732253277123).UTC()
	sentOne = &Feed{Element: FeedEvent, Report: Report{Kind: MessageSent, Source: "s1", Epoch: "e1", Seq: 9, User: "a@x/r", At: at}}
	unsound = &Feed{Element: FeedOther}
)

func named(attributes string) string { return feedOut + `<event` + names + attributes + `/></message>` }

func event(seq uint64, kind ReportKind) *Feed {
	return &Feed{Element: FeedEvent, Report: Report{Kind: kind, Source: "s1", Epoch: "e1", Seq: seq}}
}

// missed says whom a room message has not reached; many are n members.
func missed(members ...jid.JID) *Feed {
	return &Feed{Element: FeedEvent, Report: Report{Kind: RoomMissed, Source: "s1", Epoch: "e1", Seq: 9, Members: members}}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " m%d@x", i)
	}
	return b.String()
}

func lost(from, to uint64) *Feed {
	return &Feed{Element: FeedLost, Report: Report{Source: "s1", Epoch: "e1"}, From: from, To: to}
}

func hello(h Hello) *Feed {
	return &Feed{Element: FeedHello, Report: Report{Source: "s1", Epoch: "e1"}, Hello: h}
}

// feedFrames are messages that are sound XML, with what they say to the feed.
var feedFrames = []struct {
	name, frame string
	want        *Feed
}{
	{"event with its stanza", feedOut + sent + fwd + chat + unwrap, sentOne},
	{"event behind text", feedOut + "\n " + sent + fwd + chat + unwrap, sentOne},
	{"event by a prefix", `<message><f:event xmlns:f='urn:eventpusher:feed:1' source='s1' epoch='e1' seq='9' kind='offline'/></message>`, event(9, SessionOffline)},
	{"escaped attributes", feedOut + `<event` + feedNS + ` source='s&#49;' epoch='&#x65;1' seq='&#57;' kind='&#x6f;ffline' user='a&#64;x'/></message>`,
		&Feed{Element: FeedEvent, Report: Report{Kind: SessionOffline, Source: "s1", Epoch: "e1", Seq: 9, User: "a@x"}}},
	{"attributes of namespaces are not the event's", feedOut + `<event xmlns:p='urn:p'` + names + ` p:seq='1' seq='9' p:kind='online'/></message>`, event(9, UnknownReport)},
	{"sent to a user whom it does not reach", named(` seq='9' kind='message-sent' reached='false'`),
		&Feed{Element: FeedEvent, Report: Report{Kind: MessageSent, Source: "s1", Epoch: "e1", Seq: 9, Unreached: true}}},
	{"reached means nothing else", named(` seq='9' kind='message-received' reached='false'`), event(9, MessageReceived)},
	{"sent by a stranger", named(` seq='9' kind='message-sent' contact='false'`),
		&Feed{Element: FeedEvent, Report: Report{Kind: MessageSent, Source: "s1", Epoch: "e1", Seq: 9, Stranger: true}}},
	{"not acknowledged, of a stranger", named(` seq='9' kind='message-unacked' contact='false'`),
		&Feed{Element: FeedEvent, Report: Report{Kind: MessageUnacked, Source: "s1", Epoch: "e1", Seq: 9, Stranger: true}}},
	{"of a contact", named(` seq='9' kind='message-offline' contact='true'`), event(9, MessageOffline)},
	{"contact means nothing else", named(` seq='9' kind='room-message' contact='false'`), event(9, RoomMessage)},
	{"sent to a user whom it reaches", named(` seq='9' kind='message-sent' reached='true'`), event(9, MessageSent)},
	{"the end of an account", named(` seq='9' kind='account-removed' user='a@x'`),
		&Feed{Element: FeedEvent, Report: Report{Kind: AccountRemoved, Source: "s1", Epoch: "e1", Seq: 9, User: "a@x"}}},
	{"unknown kind", named(` seq='9' kind='message-edited'`), event(9, UnknownReport)},
	{"kind in another case", named(` seq='9' kind='Online'`), event(9, UnknownReport)},
	{"no kind", named(` seq='9'`), event(9, UnknownReport)},
	{"largest number", named(` seq='9223372036854775807'`), event(1<<63-1, UnknownReport)},
	{"leading zeros", named(` seq='0000000000000000009'`), event(9, UnknownReport)},
	{"snapshot start", named(` seq='3' kind='snapshot-start' id='i 1'`),
		&Feed{Element: FeedEvent, Report: Report{Kind: SnapshotStart, Source: "s1", Epoch: "e1", Seq: 3, ID: "i 1"}}},
	{"snapshot end", named(` seq='4' kind='snapshot-end' id='i' count='12'`),
		&Feed{Element: FeedEvent, Report: Report{Kind: SnapshotEnd, Source: "s1", Epoch: "e1", Seq: 4, ID: "i", Count: 12}}},
	{"snapshot of nobody", named(` seq='4' kind='snapshot-end' id='i' count='0'`),
		&Feed{Element: FeedEvent, Report: Report{Kind: SnapshotEnd, Source: "s1", Epoch: "e1", Seq: 4, ID: "i"}}},
	{"count beyond all sense", named(` seq='4' kind='snapshot-end' count='99999999999'`), event(4, SnapshotEnd)},
	{"id of another kind", named(` seq='4' kind='online' id='i' count='3'`), event(4, SessionOnline)},
	{"members who have missed something", named(` seq='9' kind='room-missed' room='r@c.x' nick='n' members='Bob@X carol@x'`), missed("bob@x", "carol@x")},
	{"members in any order, with any space", named(" seq='9' kind='room-missed' members='\tcarol@x&#10;bob@x  '"), missed("bob@x", "carol@x")},
	{"members twice", named(` seq='9' kind='room-missed' members='bob@x carol@x BOB@x bob@x'`), missed("bob@x", "carol@x")},
	{"what is no account among the members", named(` seq='9' kind='room-missed' members='x bob@x/r @x bob@ / bob@x &#38;'`), missed("bob@x")},
	{"no account among the members", named(` seq='9' kind='room-missed' members='x y'`), missed()},
	{"members beyond ASCII", named(` seq='9' kind='room-missed' members='Żółw@x&#x2003;&lt;@x'`), missed("<@x", "żółw@x")},
	{"no members", named(` seq='9' kind='room-missed'`), missed()},
	{"members of another kind", named(` seq='9' kind='room-message' members='bob@x'`), event(9, RoomMessage)},
	{"time without decimals", named(` seq='1' t='1732253277'`), event(1, UnknownReport)},
	{"time with six decimals", named(` seq='1' t='1732253277.123456'`), event(1, UnknownReport)},
	{"time before 1970", named(` seq='1' t='-1.000'`), event(1, UnknownReport)},
	{"time of letters", named(` seq='1' t='1e9.000'`), event(1, UnknownReport)},
	{"time without seconds", named(` seq='1' t='.000'`), event(1, UnknownReport)},

	{"lost", feedOut + `<lost` + names + ` from='3' to='7'/></message>`, lost(3, 7)},
	{"one lost", feedOut + `<lost` + names + ` from='3' to='3'/></message>`, lost(3, 3)},
	{"lost backwards", feedOut + `<lost` + names + ` from='7' to='3'/></message>`, unsound},
	{"lost without an end", feedOut + `<lost` + names + ` from='7'/></message>`, unsound},

	{"hello", feedOut + `<hello` + names + ` first='8' next='20' hosts='Example.org conference.example.org' server='Prosody 0.12.3' prev-epoch='e0' prev-last='5120' clean='true'/></message>`,
		hello(Hello{First: 8, Next: 20, Hosts: []jid.JID{"example.org", "conference.example.org"}, Server: "Prosody 0.12.3", PrevEpoch: "e0", PrevLast: 5120, Clean: true})},
	{"hello with nothing kept", feedOut + `<hello` + names + ` first='8' next='8'/></message>`, hello(Hello{First: 8, Next: 8})},
	{"hello, nothing of the last epoch", feedOut + `<hello` + names + ` first='1' next='1' prev-epoch='e0' prev-last='0' clean='false'/></message>`, hello(Hello{First: 1, Next: 1, PrevEpoch: "e0"})},
	{"hello, numbers backwards", feedOut + `<hello` + names + ` first='8' next='7'/></message>`, unsound},
	{"hello without numbers", feedOut + `<hello` + names + `/></message>`, unsound},
	{"hello after an epoch without a name", feedOut + `<hello` + names + ` first='8' next='8' prev-epoch=''/></message>`, unsound},

	{"no seq", named(``), unsound},
	{"seq zero", named(` seq='0'`), unsound},
	{"seq too large", named(` seq='9223372036854775808'`), unsound},
	{"seq far too large", named(` seq='99999999999999999999'`), unsound},
	{"seq with a sign", named(` seq='+9'`), unsound},
	{"seq with a space", named(` seq=' 9'`), unsound},
	{"seq in hexadecimal", named(` seq='0x9'`), unsound},
	{"no source", feedOut + `<event` + feedNS + ` epoch='e' seq='1'/></message>`, unsound},
	{"empty epoch", feedOut + `<event` + feedNS + ` source='s' epoch='' seq='1'/></message>`, unsound},
	{"source with a space", feedOut + `<event` + feedNS + ` source='s 1' epoch='e' seq='1'/></message>`, unsound},
	{"source with a space beyond ASCII", feedOut + `<event` + feedNS + " source='s\u2003' epoch='e' seq='1'/></message>", unsound},
	{"source with a control character", feedOut + `<event` + feedNS + " source='s\u0085' epoch='e' seq='1'/></message>", unsound},
	{"source of 129 characters", feedOut + `<event` + feedNS + ` source='` + strings.Repeat("é", 129) + `' epoch='e' seq='1'/></message>`, unsound},
	{"source of 128 characters", feedOut + `<event` + feedNS + ` source='` + strings.Repeat("é", 128) + `' epoch='e' seq='1'/></message>`,
		&Feed{Element: FeedEvent, Report: Report{Kind: UnknownReport, Source: strings.Repeat("é", 128), Epoch: "e", Seq: 1}}},
	{"unknown element", feedOut + `<goodbye` + names + `/></message>`, unsound},

	{"event that is not the first child", feedOut + `<body/>` + sent + `</message>`, nil},
	{"event inside", feedOut + `<x>` + sent + `</x></message>`, nil},
	{"event in a forwarded message", feedOut + fwd + `<message xmlns='jabber:client'>` + sent + `</message>` + unwrap, nil},
	{"event in a presence", `<presence>` + sent + `</presence>`, nil},
	{"event of another version", feedOut + `<event xmlns='urn:eventpusher:feed:2' source='s' epoch='e' seq='1'/></message>`, nil},
	{"only the first counts", feedOut + sent + strings.Replace(sent, "'9'", "'10'", 1) + `</message>`, sentOne},
	{"unsound, then sound", feedOut + `<event` + feedNS + `/>` + sent + `</message>`, unsound},
}

func TestDecodeFeed(t *testing.T) {
	d := NewDecoder(tight)
	for _, c := range feedFrames {
		t.Run(c.name, func(t *testing.T) {
			var env Envelope
			if err := d.Decode([]byte(c.frame), &env); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, env.Feed); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			agree(t, d, []byte(c.frame), tight)
		})
	}
}

// damaged are frames that are refused behind the element of the feed.
var damaged = []struct {
	name, rest string
	defect     Defect
}{
	{"cut off", fwd, Malformed},
	{"malformed inside", fwd + `<message xmlns='jabber:client' id=1/>` + unwrap, BadAttribute},
	{"invalid UTF-8 inside", fwd + "<message xmlns='jabber:client'><body>\xC5</body>" + unwrap, BadEncoding},
	{"illegal character inside", fwd + "<message xmlns='jabber:client'><body>\x01</body>" + unwrap, BadCharacter},
	{"comment inside", fwd + `<message xmlns='jabber:client'><!-- x -->` + unwrap, RestrictedXML},
	{"unknown entity inside", fwd + `<message xmlns='jabber:client'><body>&nbsp;</body>` + unwrap, BadReference},
	{"unbound prefix inside", fwd + `<p:message/>` + unwrap, BadNamespace},
	{"too deep inside", fwd + strings.Repeat("<x>", 8), NestedTooDeep},
	{"end tags that do not match", fwd + `</forwarder></message>`, TagMismatch},
	{"bytes behind it", `</message>x`, Malformed},
	{"too large", fwd + chat + strings.Repeat(" ", 2048) + unwrap, Oversized},
}

func TestDecodeFeedDamaged(t *testing.T) {
	d := NewDecoder(tight)
	for _, c := range damaged {
		t.Run(c.name, func(t *testing.T) {
			frame := []byte(feedOut + sent + c.rest)
			var env Envelope
			var refused *StanzaError
			if err := d.Decode(frame, &env); !errors.As(err, &refused) || refused.Defect != c.defect {
				t.Fatalf("%v, want %v", err, c.defect)
			}
			want := Envelope{Outer: Stanza{Kind: Message, From: "x", To: "ev.x"}, Feed: sentOne}
			if diff := cmp.Diff(want, env); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			agree(t, d, frame, tight)
		})
	}
	t.Run("before it", func(t *testing.T) {
		var env Envelope
		err := d.Decode([]byte(feedOut+"&nbsp;"+sent+`</message>`), &env)
		if err == nil || env.Feed != nil {
			t.Errorf("%v, %+v", err, env.Feed)
		}
	})
}

// TestReaderFeedFaults reads what a Framer gives up as too large or too deep.
func TestReaderFeedFaults(t *testing.T) {
	for _, c := range []struct {
		name, rest string
		fault      Fault
	}{
		{"too large", fwd + chat + strings.Repeat(" ", 100_000) + unwrap, TooLarge},
		{"too deep", fwd + strings.Repeat("<x>", 20) + strings.Repeat("</x>", 20) + unwrap, TooDeep},
	} {
		t.Run(c.name, func(t *testing.T) {
			stream := feedOut + sent + c.rest + feedOut + sent + fwd + chat + unwrap
			r := NewReader(strings.NewReader(stream), Limits{Size: 4096, Depth: 8})
			var env Envelope
			frame, err := r.Next(&env)
			if err != nil || frame.Fault != c.fault {
				t.Fatalf("%v, %v", frame.Fault, err)
			}
			want := Envelope{Outer: Stanza{Kind: Message, From: "x", To: "ev.x"}, Feed: sentOne}
			if diff := cmp.Diff(want, env); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if frame, err = r.Next(&env); err != nil || frame.Fault != NoFault || env.Inner.Body != "hi" {
				t.Errorf("what follows: %v, %v, %+v", frame.Fault, err, env.Inner)
			}
		})
	}
}

// TestDecodeFeedForgets decodes one after the other into the same envelope.
func TestDecodeFeedForgets(t *testing.T) {
	d := NewDecoder(tight)
	var env Envelope
	for _, c := range feedFrames {
		if err := d.Decode([]byte(c.frame), &env); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, env.Feed); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", c.name, diff)
		}
	}
	for _, frame := range []string{`<message/>`, `<message`} {
		env = Envelope{Feed: sentOne}
		if _ = d.Decode([]byte(frame), &env); env.Feed != nil {
			t.Errorf("%s: left over: %+v", frame, env.Feed)
		}
	}
}

// TestFeedNamesAreShared keeps the memory of a stanza from being held by a name.
func TestFeedNamesAreShared(t *testing.T) {
	d := NewDecoder(Limits{})
	var a, b Envelope
	if d.Decode([]byte(feedOut+sent+fwd+chat+unwrap), &a) != nil || d.Decode([]byte(feedOut+sent+`</message>`), &b) != nil {
		t.Fatal("refused")
	}
	if unsafe.StringData(a.Feed.Source) != unsafe.StringData(b.Feed.Source) || unsafe.StringData(a.Feed.Epoch) != unsafe.StringData(b.Feed.Epoch) {
		t.Error("the names of two events are two strings")
	}
	for i := range 3 * maxNames {
		frame := strings.Replace(feedOut+sent+`</message>`, "'s1'", fmt.Sprintf("'forged%d'", i), 1)
		if err := d.Decode([]byte(frame), &b); err != nil || b.Feed.Source != fmt.Sprintf("forged%d", i) {
			t.Fatalf("%v, %+v", err, b.Feed)
		}
	}
	if len(d.names) > maxNames {
		t.Errorf("%d names are remembered", len(d.names))
	}
}

// TestFeedMembersAreBounded: a longer list is no list.
func TestFeedMembersAreBounded(t *testing.T) {
	wide := Limits{Size: 64 << 10}
	d := NewDecoder(wide)
	for n, want := range map[int]int{1: 1, maxMembers: maxMembers, maxMembers + 1: 0, 5 * maxMembers: 0} {
		frame := []byte(named(` seq='9' kind='room-missed' members='` + many(n) + `'`))
		var env Envelope
		if err := d.Decode(frame, &env); err != nil || len(env.Feed.Members) != want {
			t.Errorf("%d members: %d are read, want %d; %v", n, len(env.Feed.Members), want, err)
		}
		agree(t, d, frame, wide)
	}
}

func TestReaderFeedAllocations(t *testing.T) {
	frame := strings.Replace(feedOut+sent+fwd+chat+unwrap, "A@x", "a@x", 1) // needs no preparation
	r := NewReader(&looped{data: []byte(frame + "\n"), n: 1 << 30}, Limits{})
	var env Envelope
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := r.Next(&env); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}

// asFeed is the corpus as the event-feed would send it.
func asFeed(b *testing.B) (frames [][]byte) {
	b.Helper()
	for i, frame := range corpus(b) {
		inner := bytes.Replace(frame, []byte("<message"), []byte("<message xmlns='jabber:client'"), 1)
		if !bytes.HasPrefix(frame, []byte("<message")) || bytes.Contains(frame, []byte("<forwarded")) {
			continue
		}
		event := fmt.Sprintf(`<event%s seq='%d' kind='message-sent' user='alice@example.org/phone' to='bob@example.org' t='1732253277.123'/>`, names, i+1)
		frames = append(frames, []byte(feedOut+event+fwd+string(inner)+unwrap))
	}
	return frames
}

// BenchmarkDecodeFeed compares events of the feed to the same stanzas in the wrapper
// of mod_service_log.
func BenchmarkDecodeFeed(b *testing.B) {
	events := asFeed(b)
	wrapped := make([][]byte, len(events))
	for i, e := range events {
		_, rest, _ := bytes.Cut(e, []byte("<forwarded"))
		wrapped[i] = []byte(feedOut + "<forwarded" + string(rest))
	}
	for _, c := range []struct {
		name   string
		frames [][]byte
	}{{"service_log", wrapped}, {"event-feed", events}} {
		b.Run(c.name, func(b *testing.B) {
			d := NewDecoder(Limits{})
			var env Envelope
			b.ReportAllocs()
			defer perStanza(b, len(c.frames))()
			for b.Loop() {
				for _, frame := range c.frames {
					if err := d.Decode(frame, &env); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
