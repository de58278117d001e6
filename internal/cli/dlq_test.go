package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/event"
	"eventpusher/internal/control"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/outboxtest"
)

// keep returns dead letters of an outbox of their own.
func keep(t *testing.T, list ...outbox.DeadLetter) control.Letters {
	t.Helper()
	box := outboxtest.Open(t)
	if err := box.Bury(list...); err != nil {
		t.Fatal(err)
	}
	return replayable{box.DeadLetters(), kept{box}}
}

// replayable are dead letters with what replays them.
type replayable struct {
	outbox.DeadLetters
	kept
}

func (r replayable) Replay(f outbox.LetterFilter) (int, error) { return r.Embedded.Replay(f) }

// kept is an outbox that no instance runs.
type kept struct{ *outbox.Embedded }

func (kept) Move(context.Context, string, string) (int, error) { return 0, nil }

func (kept) Waiting(string) (int, error) { return 0, nil }

func (k kept) Replay(_ context.Context, f outbox.LetterFilter) (int, error) {
	return k.Embedded.Replay(f)
}

func TestPrintLetters(t *testing.T) {
	died := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	list := []outbox.DeadLetter{
		{Backend: "crm", Reason: "permanent", Attempts: 1, Err: "status 400", Event: &event.Event{
			ID: "e1", Kind: event.Chat, Type: "chat", Direction: event.In, From: "alice@example.org/phone", To: "bob@example.org",
		}},
		{Reason: "filter", Err: "no", Event: &event.Event{ID: "e2", Kind: event.UserStatus, Type: "online", From: "b\x1b[2J\tad@example.org/x"}},
	}
	for i := range list {
		list[i].Died = died
	}
	letters := keep(t, list...)
	var out bytes.Buffer
	if err := printLetters(&out, letters, outbox.LetterFilter{}, false); err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Fields(line))
	}
	want := [][]string{
		strings.Fields("NUMBER DIED BACKEND REASON ATTEMPTS EVENT WHAT FROM TO ERROR"),
		strings.Fields("1 2026-01-31T12:00:00Z crm permanent 1 e1 chat chat in alice@example.org bob@example.org status 400"),
		strings.Fields("2 2026-01-31T12:00:00Z - filter 0 e2 user_status online b?[2J?ad@example.org - no"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	for says, from := range map[string]control.Letters{"none of the 2 dead letters matches\n": letters, "no dead letters\n": keep(t)} {
		out.Reset()
		if err := printLetters(&out, from, outbox.LetterFilter{Backend: "nope"}, false); err != nil || out.String() != says {
			t.Errorf("%v, %q instead of %q", err, &out, says)
		}
	}

	out.Reset()
	if err := printLetters(&out, letters, outbox.LetterFilter{Limit: 1}, true); err != nil {
		t.Fatal(err)
	}
	var line struct {
		Event struct{ From, To string }
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Event.From != "alice@example.org/phone" || line.Event.To != "bob@example.org" {
		t.Errorf("as JSON: %+v, %v", line, err)
	}
}

// TestReasons: every reason that the documentation names can be asked for.
func TestReasons(t *testing.T) {
	for _, reason := range []string{"permanent", "too_large", "gone", "max_age", "parked_full", "filter", "when", "undecodable"} {
		f, err := letterFlags{reason: reason}.filter(time.Now())
		if err != nil || f.Reason != reason {
			t.Errorf("%+v, %v", f, err)
		}
	}
}

// TestSelected: more than one page.
func TestSelected(t *testing.T) {
	for _, n := range []int{0, 1, page, 2*page + 1} {
		letters := keep(t, slices.Repeat([]outbox.DeadLetter{{Event: &event.Event{ID: "e"}}}, n)...)
		if got, err := selected(letters, outbox.LetterFilter{}); got != n || err != nil {
			t.Errorf("%d instead of %d, %v", got, n, err)
		}
	}
}

// TestBrokenConfiguration: of a file that cannot be read no command says what is configured, and its
// error is told once.
func TestBrokenConfiguration(t *testing.T) {
	t.Chdir(t.TempDir())
	box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: "outbox"})
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("config.toml", []byte("[["), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := invoke("dlq", "drop", "-backend", "crm")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "only once config.toml has no error") {
		t.Errorf("dlq drop: %d, %s%s", code, stdout, stderr)
	}
	if code, _, stderr := invoke("explain", "nobody"); code != exitFailed || strings.Count(stderr, "not valid TOML") != 1 {
		t.Errorf("explain: %d, %s", code, stderr)
	}
}
