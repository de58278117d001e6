package filter_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher/filter"
)

func TestProblemsOfFilters(t *testing.T) {
	keep := func(e string) config.Filter { return config.Filter{Name: "f", Keep: e} }
	meta := func(k, e string) config.Filter {
		return config.Filter{Name: "f", Metadata: map[string]string{k: e}}
	}
	for _, tc := range []struct {
		name   string
		filter config.Filter
		path   string
		text   string
		remedy string // a part of it
	}{
		{"unknown field", keep(`event.bodi == "x"`), `filter "f": keep`, `unknown field event.bodi (at character 7)`, `did you mean event.body?`},
		{"unknown name", keep(`kind == "chat"`), `filter "f": keep`, `unknown name kind (at character 1)`, `did you mean event.kind?`},
		{"a field that begins alike", keep(`event.rom == "x"`), `filter "f": keep`, `unknown field event.rom (at character 7)`, `did you mean event.room?`},
		{"a field like none", keep(`event.x == "x"`), `filter "f": keep`, `unknown field event.x (at character 7)`, `expressions can use event.kind`},
		{"unknown table", keep(`evnt.body == "x"`), `filter "f": keep`, `unknown name evnt (at character 1)`, `did you mean event?`},
		{"an assignment", keep(`event.kind = "chat"`), `filter "f": keep`, `= is not expected here (at character 12)`, `write ==`},
		{"a mistyped operator", keep(`event.from endsWidth "x"`), `filter "f": keep`, `endsWidth is not expected here (at character 12)`, `did you mean endsWith?`},
		{"text without quotes", keep(`event.kind == groupchatter`), `filter "f": keep`, `unknown name groupchatter (at character 15)`, `texts stand in quotes`},
		{"a kind that is none", keep(`event.kind == "groupchat"`), `filter "f": keep`, `event.kind is never "groupchat" (at character 15)`, `it is one of "user_status", "chat", "unack", "stored", "notification", "missed"`},
		{"a kind that no filter sees", keep(`event.kind != "account_removed"`), `filter "f": keep`, `event.kind is never "account_removed" (at character 15)`, `"notification"`},
		{"a type that is none", keep(`"group-chat" != event.type`), `filter "f": keep`, `event.type is never "group-chat" (at character 1)`, `"groupchat"`},
		{"a class that is none", keep(`event.class in ["content", "typing"]`), `filter "f": keep`, `event.class is never "typing" (at character 28)`, `"state"`},
		{"a direction that is none", keep(`not (event.direction == "sent")`), `filter "f": keep`, `event.direction is never "sent"`, `"in", "out"`},
		{"known fields are listed", keep(`foo`), `filter "f": keep`, `unknown name foo (at character 1)`, `event.recipient_offline, event.stranger, event.session_count, event.time, event.timestamp, event.stanza_id, event.id, event.reconciled, event.unverified, event.replayed, metadata`},
		{"text and number", keep(`event.body > 3`), `filter "f": keep`, `> cannot be used with a text and a whole number (at character 12)`, `string(), int() and float()`},
		{"no condition", keep(`event.body`), `filter "f": keep`, `gives a text instead of true or false`, `event.kind == "chat"`},
		{"number as a condition", keep(`len(event.body)`), `filter "f": keep`, `gives a whole number instead of true or false`, `write a condition`},
		{"half", keep(`event.kind ==`), `filter "f": keep`, `ends too early (at character 13)`, `complete`},
		{"unknown field before matches", keep(`event.bodi matches "tea"`), `filter "f": keep`, "unknown field event.bodi (at character 7)", "did you mean event.body?"},
		{"unknown field in a function", keep(`event.kind == "chat" and lower(event.bodi) == "tea"`), `filter "f": keep`, "unknown field event.bodi (at character 38)", "did you mean event.body?"},
		{"unknown name in a predicate", keep(`any([1], # > event.n)`), `filter "f": keep`, "unknown field event.n (at character 20)", "expressions can use"},
		{"wrong pattern", keep(`event.body matches "a(b"`), `filter "f": keep`, "the pattern is wrong: missing closing ): \"a(b\" (at character 12)", `RE2`},
		{"pattern from the event", keep(`event.body matches event.type`), `filter "f": keep`, `the pattern of matches is not a plain text (at character 12)`, `write it out`},
		{"huge pattern", keep(`event.body matches "(abcdefghij){500}"`), `filter "f": keep`, `the pattern is too large (`, `RE2`},
		{"now", keep(`now().Hour() > 8`), `filter "f": keep`, `now() is not available in filters (at character 1)`, `event.time`},
		{"repeat", keep(`len(repeat(event.body, 1000000)) > 1`), `filter "f": keep`, `repeat() is not available in filters`, `functions are abs, all, any,`},
		{"map", keep(`len(map(1..3, #)) > 1`), `filter "f": keep`, `map() is not available in filters`, `functions are`},
		{"unknown function", keep(`hash(event.body) == "x"`), `filter "f": keep`, `hash() does not exist (at character 1)`, `functions are`},
		{"environment", keep(`$env["event"] != nil`), `filter "f": keep`, `$env cannot be used`, `event.kind`},
		{"method of a text", keep(`event.body.Foo() == "x"`), `filter "f": keep`, `a text has no field Foo`, `event.kind`},
		{"wrong argument", keep(`lower(event.session_count) == "x"`), `filter "f": keep`, `lower needs a text, not a whole number (at character 13)`, `string()`},
		{"too long", keep(`event.online or ` + strings.Repeat(" ", 17000) + `true`), `filter "f": keep`, `is longer than 16384 bytes`, `split`},
		{"too many parts", keep(strings.Repeat("event.online or ", 900) + "true"), `filter "f": keep`, `has more than 2000 parts`, `split`},
		{"time as metadata", meta("t", `event.time`), `filter "f": metadata.t`, `gives a time`, `event.timestamp`},
		{"duration as metadata", meta("t", `event.time - event.time`), `filter "f": metadata.t`, `gives a duration`, `.Seconds()`},
		{"list as metadata", meta("t", `split(event.body, " ")`), `filter "f": metadata.t`, `gives a list`, `strings, numbers and booleans`},
		{"table as metadata", meta("t", `metadata`), `filter "f": metadata.t`, `gives a table`, `strings, numbers and booleans`},
		{"event as metadata", meta("t", `event`), `filter "f": metadata.t`, `gives event`, `strings, numbers and booleans`},
		{"reserved key", meta("user_id", `1`), `filter "f": metadata.user_id`, `would replace a field of the payload`, `override = true`},
		{"empty key", meta("", `1`), `filter "f": metadata.`, `is empty`, `letters`},
		{"control character", meta("a\nb", `1`), "filter \"f\": metadata.a\nb", `holds a character that cannot be printed`, `letters`},
		{"long key", meta(strings.Repeat("k", 257), `1`), `filter "f": metadata.` + strings.Repeat("k", 257), `is longer than 256 bytes`, `letters`},
		{"priority", config.Filter{Name: "f", Priority: 50}, `filter "f": priority`, `is 50`, `from 1 to 49`},
		{"on_error", config.Filter{Name: "f", OnError: "ignore"}, `filter "f": on_error`, `is "ignore"`, `"dead_letter", "keep" or "drop"`},
		{"no name", config.Filter{}, `filter[0]: name`, `is missing`, `name`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			filters, problems := filter.Compile([]config.Filter{tc.filter})
			if len(filters) != 0 {
				t.Error("a filter came out")
			}
			if len(problems) != 1 {
				t.Fatalf("%d problems: %v", len(problems), problems)
			}
			p := problems[0]
			if p.Severity != config.Error {
				t.Errorf("severity %v", p.Severity)
			}
			if p.Path != tc.path || !strings.HasPrefix(p.Text, tc.text) {
				t.Errorf("got  %s: %s\nwant %s: %s", p.Path, p.Text, tc.path, tc.text)
			}
			if !strings.Contains(p.Remedy, tc.remedy) {
				t.Errorf("remedy %q lacks %q", p.Remedy, tc.remedy)
			}
		})
	}
}

func TestEveryProblemIsReported(t *testing.T) {
	filters, problems := filter.Compile([]config.Filter{
		{Name: "a", Keep: "nope", Metadata: map[string]string{"x": "nope", "message": "1", "y": "1"}},
		{Name: "fine", Keep: "true"},
		{Name: "a", OnError: "?", Priority: 99},
	})
	var got []string
	for _, p := range problems {
		got = append(got, p.Path)
	}
	want := []string{
		`filter "a": keep`, `filter "a": metadata.message`, `filter "a": metadata.x`,
		`filter "a": name`, `filter "a": priority`, `filter "a": on_error`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(filters) != 1 || filters[0].Name() != "fine" || filters[0].Priority() != filter.DefaultFilterPriority {
		t.Errorf("filters: %v", filters)
	}
}

func TestNamesThatSNSDoesNotTakeAreWarnedAbout(t *testing.T) {
	for key, warned := range map[string]bool{
		"plain": false, "a.b-c_D9": false, "with space": true, "żółw": true, ".a": true, "a..b": true, "aws.x": true, "Amazon.x": true,
	} {
		filters, problems := filter.Compile([]config.Filter{{Name: "f", Metadata: map[string]string{key: "1"}}})
		if len(filters) != 1 {
			t.Errorf("%s: no filter", key)
		}
		if got := len(problems) == 1 && problems[0].Severity == config.Warning; got != warned {
			t.Errorf("%s: warned %v, want %v (%v)", key, got, warned, problems)
		}
	}
}

func TestExpressionFields(t *testing.T) {
	want := []string{
		"event.kind", "event.type", "event.direction", "event.sort", "event.from", "event.to", "event.user", "event.room", "event.body",
		"event.class", "event.encrypted", "event.fallback", "event.replaces", "event.online", "event.recipient_offline", "event.stranger", "event.session_count", "event.time",
		"event.timestamp", "event.stanza_id", "event.id", "event.reconciled", "event.unverified", "event.replayed", "metadata",
	}
	if diff := cmp.Diff(want, filter.ExpressionFields()); diff != "" {
		t.Error(diff)
	}
}

// FuzzExpression compiles and runs whatever it is given: no panic, no run that
// does not end, and nothing of the body in an error.
func FuzzExpression(f *testing.F) {
	for _, seed := range []string{
		`event.kind == "chat" and event.body matches "a+b"`, `any(split(event.body, ""), # == "x")`, `any(1..9, any(1..9, # > 3))`,
		`let a = event.body + event.body; len(a + a) > 1`, `metadata.x ?? "y"`, `event.time.Format(event.body)`, `{"a": 1}.a == 1`,
		`event?.body`, `[1, 2, 3][event.session_count:]`, `"kind" in event`, `-event.timestamp ** 2`, `count(1..100, # % 2 == 0)`,
		`if event.online { 1 } else { 2 }`, `event.body | lower() | trim()`, `event.time.In(nil)`, `max(1, 2.5) - 1 / 0`, `event.body[-1:0]`,
		`event["body"]`, `(((((event)))))`, "`raw`", `b"bytes"`, `event.time.Zone()`, `event.time.Add(1)`, `replace(event.body, "", event.body)`,
	} {
		f.Add(seed, "Hello, secret-word of the body")
	}
	f.Fuzz(func(t *testing.T, src, body string) {
		for _, c := range []config.Filter{
			{Name: "k", Keep: src},
			{Name: "m", Metadata: map[string]string{"v": src}},
		} {
			filters, problems := filter.Compile([]config.Filter{c})
			for _, p := range problems {
				if p.Text == "" || p.Severity == config.Error && p.Remedy == "" {
					t.Errorf("problem without text or remedy: %+v", p)
				}
			}
			for _, filter := range filters {
				e := chat(body)
				e.Metadata = event.Metadata{"x": int64(1), "text": "t"}
				if _, err := filter.Filter(&e); err != nil && len(body) > 12 && strings.Contains(err.Error(), body) {
					t.Errorf("content in the error: %v", err)
				}
			}
		}
	})
}
