package filter_test

import (
	"strings"
	"testing"

	"eventpusher/pusher/filter"
)

func TestProblemsOfConditions(t *testing.T) {
	for _, tc := range []struct{ src, text string }{
		{`event.bdy == "x"`, "event.bdy"},
		{`event.body`, "true or false"},
		{`event.kind == "presence"`, "is never"},
		{`event.body ==`, ""},
	} {
		c, problems := filter.CompileCondition("modules.mod_event_pusher.push.when", tc.src)
		if c != nil || len(problems) != 1 || problems[0].Path != "modules.mod_event_pusher.push.when" || !strings.Contains(problems[0].Text, tc.text) {
			t.Errorf("%s: %v", tc.src, problems)
		}
	}
}
