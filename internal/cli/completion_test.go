package cli

import (
	"os/exec"
	"strings"
	"testing"
)

// Bash itself completes with the script.
func TestCompletion(t *testing.T) {
	code, script, stderr := invoke("completion", "bash")
	if code != 0 {
		t.Fatal(stderr)
	}
	for line, want := range map[string]string{
		"eventpusher dl":             "dlq",
		"eventpusher dlq re":         "replay",
		"eventpusher tail -wh":       "-when",
		"eventpusher dlq replay -da": "",
		"eventpusher push e":         "explain",
		"eventpusher explain -js":    "-json",
	} {
		words := strings.Fields(line)
		try := script + "\nCOMP_WORDS=(" + line + ") COMP_CWORD=" + string(rune('0'+len(words)-1)) + "\n_eventpusher\necho \"${COMPREPLY[*]}\"\n"
		out, err := exec.Command("bash", "-c", try).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: %q, want %q (%v)", line, got, want, err)
		}
	}
	if code, fish, _ := invoke("completion", "fish"); code != 0 || !strings.Contains(fish, "-o when") {
		t.Errorf("fish: %d %s", code, fish)
	}
	if code, _, stderr := invoke("completion", "csh"); code != 2 || !strings.Contains(stderr, "bash, zsh and fish") {
		t.Errorf("csh: %d %s", code, stderr)
	}
}
