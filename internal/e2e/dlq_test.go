package e2e

import (
	"bytes"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestDeadLetters refuses an event, finds it with the command while the program
// runs and when it does not, and sends it again.
func TestDeadLetters(t *testing.T) {
	server, w, program, config := prepareProcess(t, "")
	// command runs a command of the program and returns its exit code and output.
	command := func(args ...string) (int, string) {
		t.Helper()
		words := strings.Fields(args[0])
		cmd := exec.Command(program, append(append(words, "-config", config), args[1:]...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			if _, ok := err.(*exec.ExitError); !ok {
				t.Fatal(err)
			}
		}
		return cmd.ProcessState.ExitCode(), out.String()
	}
	expect := func(wantCode int, wants []string, args ...string) {
		t.Helper()
		code, out := command(args...)
		if code != wantCode {
			t.Errorf("%s: exit code %d, want %d:\n%s", args[0], code, wantCode, out)
		}
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is not in the output:\n%s", args[0], want, out)
			}
		}
	}

	w.sink.Answer(http.StatusBadRequest)
	p := run(t, program, config)
	session, err := server.Accept(contextFor(t, limit))
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 2; n++ { // one after the other, since conversations go in parallel
		if err := session.Send(numbered(1, n)); err != nil {
			t.Fatal(err)
		}
		await(t, "a dead letter", func() bool {
			_, out := command("dlq list")
			return strings.Count(out, "permanent") == n
		})
	}
	expect(0, []string{"NUMBER", "http:http_pool", "chat chat in", "400"}, "dlq list")
	expect(0, []string{`"body": "1 1"`, `"backend": "http:http_pool"`, `"reason": "permanent"`}, "dlq show", "1")
	expect(1, []string{"no such dead letter: 9"}, "dlq show", "9")
	expect(2, []string{"say which"}, "dlq replay")

	expect(0, []string{"2 dead letters would be dropped"}, "dlq drop", "-all", "-dry-run")
	expect(0, []string{"1 dead letter would be replayed"}, "dlq replay", "-dry-run", "2")
	expect(1, []string{"keeps nothing for"}, "outbox forget", "-dry-run", "gone")
	expect(1, []string{`no backend is called "nix"`, "http:http_pool"}, "dlq replay", "-backend", "nix")
	expect(0, []string{"0 dead letters dropped"}, "dlq drop", "-backend", "sns")
	w.sink.Answer(http.StatusOK)
	expect(0, []string{"1 dead letter replayed"}, "dlq replay", "1")
	if got := w.sink.Wait(3)[2].Form.Get("message"); got != "1 1" {
		t.Errorf("replayed %q", got)
	}

	if code := p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	expect(0, []string{"2  "}, "dlq list")
	expect(0, []string{"1 dead letter replayed"}, "dlq replay", "2")
	expect(0, []string{"no dead letters"}, "dlq list")
	run(t, program, config)
	if got := w.sink.Wait(4)[3].Form.Get("message"); got != "1 2" {
		t.Errorf("replayed %q after the restart", got)
	}
	expect(1, []string{"keeps nothing for"}, "outbox forget", "gone")
	expect(1, []string{"keeps nothing for"}, "outbox move", "gone", "sns")
	expect(1, []string{"not configured", "http:http_pool"}, "outbox move", "gone", "nowhere")
	expect(1, []string{"sns is configured"}, "outbox forget", "sns")
}
