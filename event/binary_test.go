package event

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fullEvent has another value than zero in every field.
func fullEvent() Event {
	return Event{
		ID: "0123456789abcdef0123456789abcdef", Kind: Chat, Type: "groupchat", Direction: Out,
		From: "room@muc.h/alice", To: "bob@h/phone", User: "bob@h", Room: "room@muc.h",
		Body: "Grüße \U0001F44B\n", HasBody: true, Class: Content, Encrypted: true, Fallback: true, Replaces: "s0", Online: true,
		RecipientOffline: true, Stranger: true, SessionCount: -3, StanzaID: "s1",
		Time: time.Date(2026, 11, 22, 3, 4, 5, 678_901_234, time.UTC),
		Host: "h", Dialect: "event-feed", Packet: "<message/>", Reconciled: true, Unverified: true, Replayed: true,
		Metadata: Metadata{"text": "v", "": "empty key", "yes": true, "no": false, "n": int64(math.MinInt64), "x": 1.5, "null": nil},
	}
}

func TestBinaryRoundTrip(t *testing.T) {
	full := fullEvent()
	fields := reflect.ValueOf(full)
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			t.Errorf("the test leaves %s out", fields.Type().Field(i).Name)
		}
	}
	zoned := full
	zoned.Time = full.Time.In(time.FixedZone("", 3600))
	monotonic := full
	monotonic.Time = time.Now()
	monotonicRead := monotonic
	monotonicRead.Time = monotonic.Time.Round(0).UTC()
	odd := Event{Metadata: Metadata{"int": 7, "struct": struct{}{}, "inf": math.Inf(-1)}}
	for _, c := range []struct {
		name     string
		in, want Event
	}{
		{"zero", Event{}, Event{}},
		{"full", full, full},
		{"zone is lost, instant kept", zoned, full},
		{"monotonic reading is lost", monotonic, monotonicRead},
		{"empty metadata", Event{Metadata: Metadata{}}, Event{}},
		{"other metadata types", odd, Event{Metadata: Metadata{"int": int64(7), "struct": nil, "inf": math.Inf(-1)}}},
		{"before 1970", Event{Time: time.Unix(-1, 5).UTC()}, Event{Time: time.Unix(-1, 5).UTC()}},
		{"invalid UTF-8", Event{Body: "\xff\x00", Packet: "\xc3"}, Event{Body: "\xff\x00", Packet: "\xc3"}},
		{"long", Event{Packet: strings.Repeat("x", 1<<20)}, Event{Packet: strings.Repeat("x", 1<<20)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := AppendBinary([]byte("before"), &c.in)
			if !bytes.HasPrefix(b, []byte("before")) {
				t.Fatal("AppendBinary changed what was there")
			}
			got, rest, err := DecodeBinary(append(b[len("before"):], "behind"...))
			if err != nil || string(rest) != "behind" {
				t.Fatalf("rest %q, error %v", rest, err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if !reflect.DeepEqual(c.want, got) { // also the zone
				t.Errorf("got %#v, want %#v", got, c.want)
			}
		})
	}
}

func TestDecodeBinaryKeepsNothingOfItsInput(t *testing.T) {
	want := fullEvent()
	b := AppendBinary(nil, &want)
	got, _, err := DecodeBinary(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// firstVersion turns an event of version 2 without metadata and Replaces into one of version 1.
func firstVersion(b []byte) []byte {
	b = bytes.Clone(b[:len(b)-1])
	b[0], b[1] = b[0]-1, 1
	return b
}

// TestEarlierProgramsRead: what they know is written as they read it.
func TestEarlierProgramsRead(t *testing.T) {
	e := fullEvent()
	for stranger, want := range map[bool]byte{true: 3, false: 2} {
		e.Stranger = stranger
		b := AppendBinary(nil, &e)
		if _, n := binary.Uvarint(b); b[n] != want {
			t.Errorf("stranger %v: version %d", stranger, b[n])
		}
	}
}

// TestDecodeFirstVersion reads what an outbox holds from before an update.
func TestDecodeFirstVersion(t *testing.T) {
	want := Event{ID: "i", Kind: Chat, Direction: In, Body: "b", HasBody: true, Replayed: true, Packet: "<message/>", Time: time.Unix(1, 2).UTC()}
	got, rest, err := DecodeBinary(append(firstVersion(AppendBinary(nil, &want)), "behind"...))
	if err != nil || string(rest) != "behind" {
		t.Fatalf("rest %q, error %v", rest, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeBinaryRefuses(t *testing.T) {
	full := fullEvent()
	whole := AppendBinary(nil, &full)
	for n := range whole {
		if e, _, err := DecodeBinary(whole[:n]); err == nil {
			t.Fatalf("%d of %d bytes decoded to %+v", n, len(whole), e)
		}
	}
	plain := AppendBinary(nil, &Event{})
	change := func(at int, to byte) []byte {
		b := bytes.Clone(plain)
		b[at] = to
		return b
	}
	// Behind length, version, kind, direction, class and flags is the time.
	at := 6 + len(binary.AppendVarint(nil, time.Time{}.Unix()))
	tooManyNanoseconds := binary.AppendUvarint(bytes.Clone(plain[:at]), 1_000_000_000)
	tooManyNanoseconds = append(tooManyNanoseconds, plain[at+1:]...)
	tooManyNanoseconds[0] += byte(len(tooManyNanoseconds) - len(plain))
	stranger := AppendBinary(nil, &Event{Stranger: true})
	two := AppendBinary(nil, &Event{Metadata: Metadata{"a": true, "b": true}})
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"nothing", "malformed", nil},
		{"length zero", "malformed", []byte{0, 1}},
		{"length that overflows", "malformed", bytes.Repeat([]byte{0xff}, 11)},
		{"length beyond the end", "malformed", change(0, plain[0]+1)},
		{"later version", "of version 4", change(1, 4)},
		{"a flag that nobody has", "malformed", bytes.Replace(stranger, []byte{0, 1}, []byte{0, 1 << 7}, 1)},
		{"version 0", "of version 0", change(1, 0)},
		{"a flag that version 1 has not", "malformed", func() []byte { b := firstVersion(plain); b[5] = 1 << 7; return b }()},
		{"trailing byte", "malformed", append(change(0, plain[0]+1), 0)},
		{"metadata count without metadata", "malformed", change(len(plain)-1, 1)},
		{"repeated key", "malformed", bytes.Replace(two, []byte("b"), []byte("a"), 1)},
		{"unknown metadata type", "malformed", append(two[:len(two)-1:len(two)-1], 99)},
		{"a whole second in nanoseconds", "malformed", tooManyNanoseconds},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, rest, err := DecodeBinary(c.b)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("decoded to %+v, error %v", e, err)
			}
			if !bytes.Equal(rest, c.b) {
				t.Errorf("rest is %q", rest)
			}
		})
	}
}

func FuzzDecodeBinary(f *testing.F) {
	full := fullEvent()
	f.Add(AppendBinary(nil, &full))
	f.Add(AppendBinary(AppendBinary(nil, &Event{}), &full))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := DecodeBinary(b)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(b, rest) || len(rest) == len(b) {
			t.Fatalf("rest %q of %q", rest, b)
		}
		// Compared as bytes, since a NaN does not equal itself.
		again := AppendBinary(nil, &e)
		e2, rest, err := DecodeBinary(again)
		if err != nil || len(rest) != 0 || !bytes.Equal(again, AppendBinary(nil, &e2)) {
			t.Fatalf("%+v became %+v, %v", e, e2, err)
		}
	})
}

func BenchmarkBinary(b *testing.B) {
	e := Event{
		ID: "0123456789abcdef0123456789abcdef", Kind: Chat, Type: "chat", Direction: In,
		From: "alice@localhost/phone", To: "bob@localhost", User: "alice@localhost", Body: "Hello there",
		HasBody: true, Class: Content, Time: time.Now(), Host: "localhost", Dialect: "event-feed",
		StanzaID: "s1", Packet: strings.Repeat("x", 400),
	}
	encoded := AppendBinary(nil, &e)
	b.Run("append", func(b *testing.B) {
		b.SetBytes(int64(len(encoded)))
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst = AppendBinary(dst[:0], &e)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(encoded)))
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := DecodeBinary(encoded); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BinarySize is never less than what AppendBinary writes, and not much more.
func TestBinarySize(t *testing.T) {
	e := Event{
		ID: "1", Kind: Chat, Type: "chat", From: "a@h/r", To: "b@h", User: "a@h", Body: strings.Repeat("b", 300), Packet: strings.Repeat("p", 70_000),
		Time: time.Unix(math.MaxInt32, 999_999_999), SessionCount: math.MaxInt,
		Metadata: Metadata{"text": strings.Repeat("m", 200), "least": int64(math.MinInt64), "float": 1.5, "true": true, "": ""},
	}
	for name, e := range map[string]*Event{"an event": &e, "an empty event": {Time: time.Unix(math.MinInt64, 0), SessionCount: math.MinInt}} {
		is, most := len(AppendBinary(nil, e)), BinarySize(e)
		if is > most || most > is+200 {
			t.Errorf("%s takes %d bytes, at most %d", name, is, most)
		}
	}
}
