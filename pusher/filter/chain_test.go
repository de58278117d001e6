package filter_test

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher/filter"
)

var when = time.Date(2026, 11, 22, 3, 4, 5, 678901000, time.UTC)

func chat(body string) event.Event {
	return event.Event{
		ID: "0123456789abcdef0123456789abcdef", Kind: event.Chat, Type: "chat", Direction: event.In,
		From: "alice@localhost/res1", To: "bob@localhost/desk", User: "alice@localhost",
		Body: body, HasBody: true, Class: event.Content, StanzaID: "m1", Time: when, SessionCount: 1,
	}
}

func status(online bool, sessions int) event.Event {
	return event.Event{
		ID: "fedcba9876543210fedcba9876543210", Kind: event.UserStatus, Type: "online", Online: online,
		From: "alice@localhost/res1", User: "alice@localhost", SessionCount: sessions, Time: when,
	}
}

// outcome is what a chain has done to one event, seen from outside.
type outcome struct {
	Delivered bool
	Metadata  event.Metadata
	DeadErr   string
}

// through runs one event through the filters.
func through(t *testing.T, filters []filter.Filter, e event.Event) (got outcome) {
	t.Helper()
	chain, err := filter.NewChain(filters, filter.Metrics{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	switch r := chain.Run(&e); r.Fate {
	case filter.Keep:
		return outcome{Delivered: true, Metadata: e.Metadata}
	case filter.Dead:
		return outcome{DeadErr: r.Err.Error()}
	}
	return outcome{}
}

func compile(t *testing.T, cfg ...config.Filter) []filter.Filter {
	t.Helper()
	filters, problems := filter.Compile(cfg)
	for _, p := range problems {
		t.Fatalf("%s: %s (%s)", p.Path, p.Text, p.Remedy)
	}
	return filters
}

// TestSampleOfMongooseIM is big_tests/tests/mod_event_pusher_filter.erl as a [[filter]].
func TestSampleOfMongooseIM(t *testing.T) {
	sample := compile(t, config.Filter{
		Name: "sample", Priority: 10, Keep: `event.kind == "user_status"`,
		Metadata: map[string]string{"timestamp": "event.timestamp", "session_count": "event.session_count"},
	})
	for _, tc := range []struct {
		name string
		e    event.Event
		want outcome
	}{
		{"online", status(true, 1), outcome{Delivered: true, Metadata: event.Metadata{"timestamp": when.UnixMicro(), "session_count": int64(1)}}},
		{"last one offline", status(false, 0), outcome{Delivered: true, Metadata: event.Metadata{"timestamp": when.UnixMicro(), "session_count": int64(0)}}},
		{"chat", chat("Hi"), outcome{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, through(t, sample, tc.e)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExpressions(t *testing.T) {
	e := chat("Please HELP me")
	e.Room, e.Encrypted, e.RecipientOffline = "room@muc.localhost", true, true
	for _, tc := range []struct {
		keep string
		want bool
	}{
		{`event.kind == "chat" and event.type == "chat" and event.direction == "in"`, true},
		{`event.from == "alice@localhost/res1" and event.to == "bob@localhost/desk"`, true},
		{`event.user == "alice@localhost" and event.room == "room@muc.localhost"`, true},
		{`event.body contains "HELP"`, true},
		{`lower(event.body) contains "help me"`, true},
		{`event.body matches "(?i)\\bhelp\\b"`, true},
		{`event.body matches "^help"`, false},
		{`event.class in ["content", "call"]`, true},
		{`event.encrypted and event.recipient_offline and not event.online`, true},
		{`event.session_count >= 1 and event.session_count < 2`, true},
		{`event.time.Hour() == 3 and int(event.time.Weekday()) == 0`, true},
		{`event.timestamp == 1795316645678901`, true},
		{`event.stanza_id == "m1" and event.id startsWith "0123"`, true},
		{`any(["spam", "help"], lower(event.body) contains #)`, true},
		{`all(split(event.body, " "), len(#) > 1)`, true},
		{`split(event.from, "@")[1] startsWith "localhost"`, true},
		{`metadata.missing == nil`, true},
		{`metadata.missing matches "x"`, false},
		{`(metadata.missing ?? 0) + 1 == 1`, true},
		{`let who = event.user + "!"; who == "alice@localhost!"`, true},
		{`trim("  a ") + upper("b") + trimPrefix("xc", "x") + replace("d-", "-", "") == "aBcd"`, true},
		{`string(1) + string(true) + string(1.5) == "1true1.5"`, true},
		{`int("42") + 1 == 43 and float("1.5") * 2 == 3 and int(2.9) == 2`, true},
		{`event.session_count in 1..3`, true},
	} {
		t.Run(tc.keep, func(t *testing.T) {
			got := through(t, compile(t, config.Filter{Name: "f", Keep: tc.keep}), e)
			if diff := cmp.Diff(outcome{Delivered: tc.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMetadataValues(t *testing.T) {
	for _, tc := range []struct {
		value string
		want  any
		fault string
	}{
		{value: `event.timestamp`, want: when.UnixMicro()},
		{value: `int(event.timestamp / 1000)`, want: when.UnixMilli()},
		{value: `event.time.UnixMilli()`, want: when.UnixMilli()},
		{value: `9007199254740993`, want: int64(9007199254740993)},
		{value: `event.time.Weekday()`, want: int64(0)},
		{value: `1 / 4`, want: 0.25},
		{value: `event.encrypted`, want: false},
		{value: `event.type + "!"`, want: "chat!"},
		{value: `event.time.Format("2006-01-02")`, want: "2026-11-22"},
		{value: `event.class == "content" ? "high" : "low"`, want: "high"},
		{value: `1 / 0`, fault: `filter "f": metadata.v: the number is not finite`},
		{value: `-1 / (event.session_count - 1)`, fault: `filter "f": metadata.v: the number is not finite`},
		{value: `10.0 ** 400`, fault: `filter "f": metadata.v: the number is not finite`},
		{value: `metadata.missing`, fault: `filter "f": metadata.v: there is no value`},
		{value: `metadata.missing + 1`, fault: `filter "f": metadata.v: a value is missing or not of the type that an operator needs`},
		{value: `1 % (event.session_count - 1)`, fault: `filter "f": metadata.v: a division by zero`},
		{value: `split(event.body, " ")[7]`, fault: `filter "f": metadata.v: an index is beyond the end of a list`},
		{value: `int(event.body)`, fault: `filter "f": metadata.v: int() got a text that is no whole number`},
		{value: `float(event.body)`, fault: `filter "f": metadata.v: float() got a text that is no number`},
		{value: `int(1e300)`, fault: `filter "f": metadata.v: int() got a value that is no whole number`},
	} {
		t.Run(tc.value, func(t *testing.T) {
			got := through(t, compile(t, config.Filter{Name: "f", Metadata: map[string]string{"v": tc.value}}), chat("secret words"))
			want := outcome{DeadErr: tc.fault}
			if tc.fault == "" {
				want = outcome{Delivered: true, Metadata: event.Metadata{"v": tc.want}}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(got.DeadErr, "secret") {
				t.Error("the error holds content")
			}
		})
	}
}

func TestCostIsBounded(t *testing.T) {
	long := strings.Repeat("a b ", 1<<18) // 1 MiB
	for _, tc := range []struct{ name, keep, fault string }{
		{"pattern on a long body", `event.body matches "x"`, "matches looks at texts of at most 65536 bytes"},
		{"doubling", `let a = event.body + event.body; let b = a + a; let c = b + b; let d = c + c; let e = d + d; len(e) > 0`,
			"the expression has more to do with this event than filters may"},
		{"replace with growth", `len(replace(event.body, "", event.body)) > 0`, "the expression has more to do with this event than filters may"},
		{"many pieces", `any(split(event.body, " "), # == "x")`, "split makes at most 1024 pieces"},
		{"loop over a long body", `any(1..5000, event.body contains "x")`, "the expression has more to do with this event than filters may"},
		{"long range", `any(1..10000000, # == 0)`, "the expression makes longer lists than filters may"},
		{"nested loops", `any(1..5000, any(1..5000, any(1..5000, # == 0)))`, "the expression makes longer lists than filters may"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := through(t, compile(t, config.Filter{Name: "f", Keep: tc.keep}), chat(long))
			if diff := cmp.Diff(outcome{DeadErr: `filter "f": keep: ` + tc.fault}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCostOfShortBodiesIsEnough(t *testing.T) {
	words := `["` + strings.Repeat(`lorem", "`, 500) + `ipsum"]`
	got := through(t, compile(t, config.Filter{Name: "f", Keep: `none(` + words + `, event.body contains #)`}), chat(strings.Repeat("x ", 4096)))
	if diff := cmp.Diff(outcome{Delivered: true}, got); diff != "" {
		t.Error(diff)
	}
}

// goFilter is a filter in Go.
type goFilter struct {
	name     string
	priority int
	f        func(e *event.Event) (filter.Verdict, error)
}

func (g goFilter) Name() string                                  { return g.name }
func (g goFilter) Priority() int                                 { return g.priority }
func (g goFilter) Filter(e *event.Event) (filter.Verdict, error) { return g.f(e) }

func adds(name string, priority int, m event.Metadata) filter.Filter {
	return goFilter{name, priority, func(*event.Event) (filter.Verdict, error) { return filter.Verdict{Metadata: m}, nil }}
}

func TestChainOrder(t *testing.T) {
	var seen []string
	note := func(name string, priority int, drop bool) filter.Filter {
		return goFilter{name, priority, func(e *event.Event) (filter.Verdict, error) {
			seen = append(seen, name+" "+e.Metadata.Text("by"))
			return filter.Verdict{Drop: drop, Metadata: event.Metadata{"by": name, name: true}}, nil
		}}
	}
	t.Run("lower first, equal in order, metadata merged", func(t *testing.T) {
		seen = nil
		got := through(t, []filter.Filter{note("c", 20, false), note("a", 10, false), note("b", 10, false)}, chat("Hi"))
		if diff := cmp.Diff([]string{"a null", "b a", "c b"}, seen); diff != "" {
			t.Error(diff)
		}
		want := event.Metadata{"by": "c", "a": true, "b": true, "c": true}
		if diff := cmp.Diff(outcome{Delivered: true, Metadata: want}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("drop stops for all", func(t *testing.T) {
		seen = nil
		got := through(t, []filter.Filter{note("late", 49, false), note("stop", 1, true)}, chat("Hi"))
		if diff := cmp.Diff([]string{"stop null"}, seen); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(outcome{}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestMetadataOfOneEventDoesNotReachAnother(t *testing.T) {
	shared := event.Metadata{"k": "v"}
	n := 0
	counter := goFilter{"counter", 11, func(*event.Event) (filter.Verdict, error) {
		n++
		return filter.Verdict{Metadata: event.Metadata{"n": n}}, nil
	}}
	chain, err := filter.NewChain([]filter.Filter{adds("shared", 10, shared), counter}, filter.Metrics{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	own := event.Metadata{"own": true}
	first, second := chat("1"), chat("2")
	first.Metadata = own
	for _, e := range []*event.Event{&first, &second} {
		if r := chain.Run(e); r.Fate != filter.Keep || r.Err != nil {
			t.Fatalf("%+v", r)
		}
	}
	want := []event.Metadata{{"own": true, "k": "v", "n": int64(1)}, {"k": "v", "n": int64(2)}}
	if diff := cmp.Diff(want, []event.Metadata{first.Metadata, second.Metadata}); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(event.Metadata{"k": "v"}, shared); diff != "" {
		t.Errorf("the filter's own map has changed: %s", diff)
	}
	if len(own) != 1 {
		t.Error("the caller's map has changed")
	}
}

func TestFailingFilters(t *testing.T) {
	fails := goFilter{"bad", 20, func(*event.Event) (filter.Verdict, error) {
		return filter.Verdict{Drop: true, Metadata: event.Metadata{"x": 1}}, errors.New("out of order")
	}}
	panics := goFilter{"bad", 20, func(e *event.Event) (filter.Verdict, error) {
		return filter.Verdict{Drop: []bool{}[len(e.Body)]}, nil
	}}
	panicsWithContent := goFilter{"bad", 20, func(e *event.Event) (filter.Verdict, error) { panic(e.Body) }}
	before := event.Metadata{"kept": "yes"}
	kept := outcome{Delivered: true, Metadata: before}
	for _, tc := range []struct {
		name   string
		filter filter.Filter
		policy filter.Policy
		want   outcome
	}{
		{"error, default", fails, filter.Policy{}, outcome{DeadErr: `filter "bad": out of order`}},
		{"error, keep as MongooseIM", fails, filter.Policy{OnError: filter.OnErrorKeep}, kept},
		{"error, drop", fails, filter.Policy{OnError: filter.OnErrorDrop}, outcome{}},
		{"panic, default", panics, filter.Policy{}, outcome{DeadErr: `filter "bad": panic: runtime error: index out of range [7] with length 0`}},
		{"panic, keep", panics, filter.Policy{OnError: filter.OnErrorKeep}, kept},
		{"panic with content", panicsWithContent, filter.Policy{}, outcome{DeadErr: `filter "bad": panic (string)`}},
		{"reserved key", adds("bad", 20, event.Metadata{"message": "x"}), filter.Policy{},
			outcome{DeadErr: `filter "bad": metadata key "message" would replace a field of the payload`}},
		{"reserved key, override", adds("bad", 20, event.Metadata{"message": "x"}), filter.Policy{Override: true},
			outcome{Delivered: true, Metadata: event.Metadata{"kept": "yes", "message": "x"}}},
		{"empty key", adds("bad", 20, event.Metadata{"": "x"}), filter.Policy{}, outcome{DeadErr: `filter "bad": a metadata key is empty`}},
		{"NaN", adds("bad", 20, event.Metadata{"n": math.NaN()}), filter.Policy{}, outcome{DeadErr: `filter "bad": metadata "n": the number is not finite`}},
		{"list", adds("bad", 20, event.Metadata{"n": []int{1}}), filter.Policy{}, outcome{DeadErr: `filter "bad": metadata "n": a []int is no value for metadata`}},
		{"kinds of numbers", adds("good", 20, event.Metadata{"a": 1, "b": uint8(2), "c": float32(.5), "d": time.March}), filter.Policy{},
			outcome{Delivered: true, Metadata: event.Metadata{"kept": "yes", "a": int64(1), "b": int64(2), "c": .5, "d": int64(3)}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := through(t, []filter.Filter{adds("first", 10, before), filter.WithPolicy(tc.filter, tc.policy)}, chat("private"))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFailureIsLoggedOnceAndCounted(t *testing.T) {
	var logged bytes.Buffer
	verdicts := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "verdicts"}, []string{"filter", "outcome"})
	filters := compile(t, config.Filter{Name: "f", Keep: `int(event.body) > 0`})
	chain, err := filter.NewChain(filters, filter.Metrics{Verdicts: verdicts}, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"private one", "private two", "3", "-1"} {
		chain.Run(new(chat(body)))
	}
	if n := strings.Count(logged.String(), "filter fails"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, &logged)
	}
	if strings.Contains(logged.String(), "private") {
		t.Errorf("the log holds content:\n%s", &logged)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(verdicts)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := make(map[string]float64)
	for _, m := range families[0].GetMetric() {
		counted[m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
	}
	if diff := cmp.Diff(map[string]float64{"error": 2, "keep": 1, "drop": 1}, counted); diff != "" {
		t.Error(diff)
	}
}

func TestNewChainRefuses(t *testing.T) {
	for _, tc := range []struct {
		name    string
		filters []filter.Filter
		want    string
	}{
		{"priority of backends", []filter.Filter{adds("a", 50, nil)}, `filter "a" has priority 50; it must be between 1 and 49, because backends stand at 50`},
		{"zero", []filter.Filter{adds("a", 0, nil)}, `filter "a" has priority 0; it must be between 1 and 49, because backends stand at 50`},
		{"twice", []filter.Filter{adds("a", 1, nil), adds("a", 2, nil)}, `two filters are called "a"`},
		{"no name", []filter.Filter{adds("", 1, nil)}, `a filter has no name`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := filter.NewChain(tc.filters, filter.Metrics{}, nil)
			if err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// TestCounts: each filter counts what it was asked.
func TestCounts(t *testing.T) {
	chain, err := filter.NewChain(compile(t,
		config.Filter{Name: "no tea", Priority: 1, Keep: `event.body != "tea"`},
		config.Filter{Name: "short", Priority: 2, Keep: `metadata.absent > 1 or len(event.body) < 3`, OnError: "drop"},
	), filter.Metrics{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"tea", "tea", "coffee"} {
		e := chat(body)
		chain.Run(&e)
	}
	want := []filter.Count{{Name: "no tea", Kept: 1, Dropped: 2}, {Name: "short", Failed: 1}}
	if diff := cmp.Diff(want, chain.Counts()); diff != "" {
		t.Error(diff)
	}
}
