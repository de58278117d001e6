package filter_test

import (
	"strings"
	"sync"
	"testing"

	"eventpusher/event"
	"eventpusher/pusher/filter"
)

func TestCompileValue(t *testing.T) {
	e := event.Event{Kind: event.Chat, Type: "chat", Direction: event.In, User: "alice@example.org", Body: "hunter2", SessionCount: 2, Metadata: event.Metadata{"tenant": "a"}}
	for _, tc := range []struct {
		src  string
		want any
		err  string
	}{
		{`event.sort + "." + event.user`, "chat.in.alice@example.org", ""},
		{`metadata.tenant`, "a", ""},
		{`event.session_count`, int64(2), ""},
		{`event.session_count / 4`, 0.5, ""},
		{`event.encrypted`, false, ""},
		{`metadata.missing`, nil, "no value"},
		{`split(event.body, "@")[3]`, nil, "beyond the end"},
	} {
		value, err := filter.CompileValue(tc.src)
		if err != nil {
			t.Fatalf("%s: %v", tc.src, err)
		}
		got, err := value(&e)
		if got != tc.want || (err == nil) != (tc.err == "") || err != nil && (!strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v, %v; want %v, %q", tc.src, got, err, tc.want, tc.err)
		}
	}
	for src, text := range map[string]string{`event.bdy`: "event.body", `event.time`: "timestamp", `event.sort == "chat"`: "is never", ``: "", `event.user + `: ""} {
		if value, err := filter.CompileValue(src); err == nil || !strings.Contains(err.Error(), text) || value != nil {
			t.Errorf("%q: %v", src, err)
		}
	}
}

func TestValuesOfManyLanes(t *testing.T) {
	value, err := filter.CompileValue(`lower(event.from)`)
	if err != nil {
		t.Fatal(err)
	}
	var lanes sync.WaitGroup
	for _, from := range []string{"a", "b", "c", "d"} {
		lanes.Go(func() {
			for range 100 {
				e := event.Event{Body: from}
				e.From = e.From + "x"
				if got, err := value(&e); got != "x" || err != nil {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	lanes.Wait()
}
