package control_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/event"
	"eventpusher/internal/control"
	"eventpusher/internal/finding"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/outboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// box is an outbox with letters, which notes what is replayed and moved.
type box struct {
	*outbox.Embedded
	replayed []outbox.LetterFilter
	moved    []string
}

func (b *box) Replay(_ context.Context, f outbox.LetterFilter) (int, error) {
	if f.Backend == "broken" {
		return 0, errors.New("outbox: disk full")
	}
	b.replayed = append(b.replayed, f)
	return b.DeadLetters().Drop(f)
}

func (b *box) Move(_ context.Context, from, to string) (int, error) {
	b.moved = append(b.moved, from+" to "+to)
	if from == "nobody" {
		return 0, fmt.Errorf("outbox: nothing is kept for it: %w", fs.ErrNotExist)
	}
	return 7, nil
}

func (b *box) Waiting(backend string) (int, error) {
	if backend == "nobody" {
		return 0, fmt.Errorf("outbox: nothing is kept for it: %w", fs.ErrNotExist)
	}
	return 5, nil
}

func examine(context.Context) []finding.Finding {
	return []finding.Finding{finding.Okf("server", "attached"), finding.Failf("rabbit", "start it", "is down")}
}

func letter(backend, id string, died time.Time) outbox.DeadLetter {
	return outbox.DeadLetter{
		Backend: backend, Reason: "permanent", Err: "refused", Attempts: 1, Accepted: died.Add(-time.Hour), Died: died,
		Event: &event.Event{ID: id, Kind: event.Chat, Type: "chat", Direction: event.In, From: "a@h/r", To: "b@h", User: "a@h", Body: "hi", HasBody: true, Time: died.Add(-time.Hour)},
	}
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// start serves a box with three letters and returns a client for it.
func start(t *testing.T) (*box, *control.Client, string) {
	t.Helper()
	b := &box{Embedded: outboxtest.Open(t)}
	for i, d := range []outbox.DeadLetter{letter("http", "e1", noon), letter("sns", "e2", noon.Add(time.Hour)), letter("http", "e3", noon.Add(2*time.Hour))} {
		if err := b.Bury(d); err != nil {
			t.Fatal(i, err)
		}
	}
	dir := t.TempDir()
	s, err := control.Listen(dir, b, examine, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, control.SocketName)); err == nil {
			t.Error("the socket is still there")
		}
	})
	c, err := control.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return b, c, dir
}

func TestClientSeesWhatTheServerHolds(t *testing.T) {
	b, c, dir := start(t)
	for name, f := range map[string]outbox.LetterFilter{
		"all":     {},
		"number":  {ID: 2},
		"backend": {Backend: "http"},
		"event":   {EventID: "e3"},
		"reason":  {Reason: "gone"},
		"since":   {Since: noon.Add(time.Hour)},
		"until":   {Until: noon.Add(time.Hour)},
		"page":    {After: 1, Limit: 1},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := b.DeadLetters().List(f)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.List(f)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-server +client):\n%s", diff)
			}
		})
	}
	got, err := c.Get(3)
	if err != nil || got.Event.ID != "e3" {
		t.Errorf("Get: %+v, %v", got, err)
	}
	if _, err := c.Get(9); !errors.Is(err, outbox.ErrNoLetter) {
		t.Errorf("a letter that is not there: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, control.SocketName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
}

func TestClientChanges(t *testing.T) {
	b, c, _ := start(t)
	if n, err := c.Drop(outbox.LetterFilter{ID: 1}); n != 1 || err != nil {
		t.Errorf("Drop: %d, %v", n, err)
	}
	f := outbox.LetterFilter{Backend: "http", Since: noon}
	if n, err := c.Replay(f); n != 1 || err != nil {
		t.Errorf("Replay: %d, %v", n, err)
	}
	if diff := cmp.Diff([]outbox.LetterFilter{f}, b.replayed); diff != "" {
		t.Error(diff)
	}
	if _, err := c.Replay(outbox.LetterFilter{Backend: "broken"}); err == nil || err.Error() != "control: the running instance says: outbox: disk full" {
		t.Errorf("an error of the server: %v", err)
	}
	left, err := c.List(outbox.LetterFilter{})
	if err != nil || len(left) != 1 || left[0].Event.ID != "e2" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestClientMovesAndForgets(t *testing.T) {
	b, c, _ := start(t)
	if n, err := c.Move(t.Context(), "old", "http:pool/2"); n != 7 || err != nil {
		t.Errorf("Move: %d, %v", n, err)
	}
	if _, err := c.Move(t.Context(), "nobody", "crm"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Move of nothing: %v", err)
	}
	if diff := cmp.Diff([]string{"old to http:pool/2", "nobody to crm"}, b.moved); diff != "" {
		t.Error(diff)
	}
	r, err := b.Reader("old", func() {})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Waiting(t.Context(), "old"); n != 5 || err != nil {
		t.Errorf("Waiting: %d, %v", n, err)
	}
	if _, err := c.Waiting(t.Context(), "nobody"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Waiting for nobody: %v", err)
	}
	if _, err := c.Forget(t.Context(), "old"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Forget of a backend that is read: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Forget(t.Context(), "old"); n != 0 || err != nil {
		t.Errorf("Forget: %d, %v", n, err)
	}
	if _, err := c.Forget(t.Context(), "old"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Forget of nothing: %v", err)
	}
}

func TestClientHasTheInstanceExamined(t *testing.T) {
	_, c, _ := start(t)
	got, err := c.Doctor(t.Context())
	if diff := cmp.Diff(examine(t.Context()), got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestNobodyThere(t *testing.T) {
	if _, err := control.Dial(t.Context(), t.TempDir()); err == nil {
		t.Error("no error without a server")
	}
}

func TestDeadSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, control.SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := control.Listen(dir, &box{Embedded: outboxtest.Open(t)}, examine, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
