package filter

import (
	"testing"

	"eventpusher/event"
)

func TestPossible(t *testing.T) {
	for source, want := range map[string]map[string]bool{
		`event.kind == "chat"`: {"chat.in": true, "unack": false, "user_status.online": false},
		`event.kind != "chat"`: {"chat.in": false, "unack": true},
		`event.online`:         {"user_status.online": true, "user_status.offline": false, "chat.in": true},
		`not event.online and event.kind == "user_status"`:    {"user_status.online": false, "user_status.offline": true, "chat.in": false},
		`event.type in ["groupchat", "headline"]`:             {"chat.in": false, "groupchat.out": true},
		`event.type == "chat" or event.direction == "out"`:    {"groupchat.in": false, "groupchat.out": true, "chat.in": true},
		`event.body contains "x" and event.direction == "in"`: {"chat.in": true, "chat.out": false},
		`event.body contains "x" or event.direction == "in"`:  {"chat.in": true, "chat.out": true},
		`event.encrypted`: {"chat.in": true},
		`false`:           {"chat.in": false},
		`event.kind == "chat" ? event.direction == "in" : event.online`: {"chat.out": false, "chat.in": true, "user_status.offline": false},
		`event.from == event.to`: {"chat.in": true},
		`metadata["x"] == 1`:     {"chat.in": true},
	} {
		c, problems := CompileCondition("when", source)
		if len(problems) > 0 {
			t.Fatalf("%s: %v", source, problems)
		}
		for name, possible := range want {
			s, err := event.ParseSelection([]string{name})
			if err != nil {
				t.Fatal(err)
			}
			if e := s.Samples()[0]; c.Possible(&e) != possible {
				t.Errorf("%s of %s: %t", source, name, !possible)
			}
		}
	}
}

// TestAllClassesCanBeAskedFor: no name that events have is refused as one that never is.
func TestAllClassesCanBeAskedFor(t *testing.T) {
	for c := event.Other; c.String() != "other" || c == event.Other; c++ {
		if _, problems := CompileCondition("when", `event.class == "`+c.String()+`"`); len(problems) > 0 {
			t.Errorf("%v: %v", c, problems)
		}
	}
}
