package backendtest

import (
	"strings"
	"testing"

	"eventpusher/internal/finding"
)

// WantFindings compares what a probe has found with lines of a level and a part of the
// text or the remedy, such as "FAIL refused". No finding may hold any of the secrets.
func WantFindings(t testing.TB, got []finding.Finding, secrets []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d findings, want %d: %v", len(got), len(want), got)
		return
	}
	for i, f := range got {
		level, part, _ := strings.Cut(want[i], " ")
		if string(f.Level) != level || !strings.Contains(f.Text+"; "+f.Remedy, part) {
			t.Errorf("%s\nwant %s", f, want[i])
		}
		for _, secret := range secrets {
			if strings.Contains(f.String(), secret) {
				t.Errorf("a secret is shown: %s", f)
			}
		}
	}
}
