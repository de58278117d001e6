package notify_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/backends/push/notify"
)

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		n    notify.Notification
		at   time.Time
		left time.Duration
		err  error
	}{
		{"now or never", notify.Notification{Time: now.Add(-time.Hour)}, now, 0, nil},
		{"from the event on", notify.Notification{Time: now.Add(-time.Minute), TTL: time.Hour}, now.Add(59 * time.Minute), 59 * time.Minute, nil},
		{"from now on", notify.Notification{TTL: time.Hour}, now.Add(time.Hour), time.Hour, nil},
		{"at its end", notify.Notification{Time: now.Add(-time.Hour), TTL: time.Hour}, now, 0, notify.ErrExpired},
		{"long past", notify.Notification{Time: now.Add(-2 * time.Hour), TTL: time.Hour}, now.Add(-time.Hour), 0, notify.ErrExpired},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at, left, err := tc.n.Expiry(now)
			if !at.Equal(tc.at) || left != tc.left || !errors.Is(err, tc.err) {
				t.Errorf("%v, %v, %v; want %v, %v, %v", at, left, err, tc.at, tc.left, tc.err)
			}
		})
	}
}

func full() notify.Notification {
	return notify.Notification{
		ID: "e1", Title: "Alice", Body: "hi", Sender: "alice@localhost", Thread: "t1",
		Badge: new(0), MessageCount: 3, Data: map[string]string{"app": "x"},
	}
}

func TestSummary(t *testing.T) {
	overridden := full()
	overridden.Data = map[string]string{"title": "mine"}
	empty := notify.Notification{}
	for _, tc := range []struct {
		name string
		n    notify.Notification
		want map[string]string
	}{
		{"all", full(), map[string]string{
			"title": "Alice", "last-message-body": "hi", "last-message-sender": "alice@localhost", "thread": "t1",
			"badge": "0", "message-count": "3", "event-id": "e1", "app": "x",
		}},
		{"mode sender", full().Redacted(notify.ContentSender, "New message"), map[string]string{
			"title": "Alice", "last-message-sender": "alice@localhost", "thread": "t1",
			"badge": "0", "message-count": "3", "event-id": "e1", "app": "x",
		}},
		{"mode none", full().Redacted(notify.ContentNone, "New message"), map[string]string{
			"title": "New message", "thread": "t1", "badge": "0", "message-count": "3", "event-id": "e1", "app": "x",
		}},
		{"data first", overridden, map[string]string{
			"title": "mine", "last-message-body": "hi", "last-message-sender": "alice@localhost", "thread": "t1",
			"badge": "0", "message-count": "3", "event-id": "e1",
		}},
		{"nothing", empty, map[string]string{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.n.Summary()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRedactedKeepsTheOriginal(t *testing.T) {
	n := full()
	_ = n.Redacted(notify.ContentNone, "x")
	if diff := cmp.Diff(full(), n); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCollapseKey(t *testing.T) {
	for _, tc := range []struct {
		id    string
		limit int
		want  string
	}{
		{"", 32, ""},
		{"Chat_1-a", 32, "Chat_1-a"},
		{"Chat_1-a", 7, "iKd4IBp"},
		{"bob@localhost", 32, "QFAQ1sFsFt7Dbz16dZbC11e6e1eQStxI"},
	} {
		n := notify.Notification{CollapseID: tc.id}
		if got := n.CollapseKey(tc.limit); got != tc.want {
			t.Errorf("CollapseKey(%d) of %q: %q, want %q", tc.limit, tc.id, got, tc.want)
		}
	}
}

func encode(n *notify.Notification) ([]byte, error) { return json.Marshal([]string{n.Title, n.Body}) }

func TestFit(t *testing.T) {
	long := strings.Repeat("ä", 50)
	for _, tc := range []struct {
		name, title, body string
		limit             int
		want              string // "" for too large
	}{
		{"fits", "t", "body", 12, `["t","body"]`},
		{"one byte less", "t", "bodies", 13, `["t","bo…"]`},
		{"between characters", "t", long, 15, `["t","ää…"]`},
		{"and never inside", "t", long, 14, `["t","ä…"]`},
		{"without the space before", "t", "so it is", 14, `["t","so…"]`},
		{"escapes count", "t", "\n\n\n\n\n\n\n", 15, `["t","\n\n…"]`},
		{"room for no body", "t", "bodies", 11, `["t",""]`},
		{"room for no whole title", "titles", "b", 12, `["ti…",""]`},
		{"room for nothing", "titles", "b", 6, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := notify.Fit(notify.Notification{Title: tc.title, Body: tc.body}, tc.limit, encode)
			if tc.want == "" {
				if backends.Reason(err) != "too_large" || !errors.As(err, new(*backends.PermanentError)) {
					t.Errorf("%q, %v, want too large", got, err)
				}
			} else if err != nil || string(got) != tc.want {
				t.Errorf("%s, %v, want %s", got, err, tc.want)
			}
		})
	}
}

func TestFitReturnsErrorsOfTheEncoding(t *testing.T) {
	broken := errors.New("broken")
	if _, err := notify.Fit(full(), 10, func(*notify.Notification) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("%v, want the encoding's error", err)
	}
	calls := 0
	_, err := notify.Fit(full(), 10, func(*notify.Notification) ([]byte, error) {
		if calls++; calls > 1 {
			return nil, broken
		}
		return make([]byte, 11), nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("%v, want the encoding's error", err)
	}
}

func FuzzFit(f *testing.F) {
	f.Add("title", "body of a message", uint16(20))
	f.Add("", strings.Repeat("😀\"", 30), uint16(64))
	f.Add("\xff\xfe", "\xe2\x80", uint16(9))
	f.Fuzz(func(t *testing.T, title, body string, limit uint16) {
		got, err := notify.Fit(notify.Notification{Title: title, Body: body}, int(limit), encode)
		if err != nil {
			if limit >= uint16(len(`["",""]`)) {
				t.Fatalf("limit %d: %v", limit, err)
			}
			return
		}
		if len(got) > int(limit) || !utf8.Valid(got) || !json.Valid(got) {
			t.Fatalf("limit %d: %d bytes: %q", limit, len(got), got)
		}
		var texts []string
		if err := json.Unmarshal(got, &texts); err != nil {
			t.Fatal(err)
		}
		for i, whole := range []string{title, body} {
			kept, shortened := strings.CutSuffix(texts[i], "…")
			if utf8.ValidString(whole) && texts[i] != whole && !(shortened && strings.HasPrefix(whole, kept)) && texts[i] != "" {
				t.Fatalf("%q became %q", whole, texts[i])
			}
		}
		// What could have been kept was kept: one more character would be too much.
		if whole, _ := encode(&notify.Notification{Title: title, Body: body}); len(whole) <= int(limit) && string(got) != string(whole) {
			t.Fatalf("%q would have fitted, got %q", whole, got)
		}
	})
}

func TestTargetHidesItself(t *testing.T) {
	target := notify.Target{
		Kind: notify.WebPush, Address: "https://push.example/s3cret", P256DH: "k3y", Auth: "4uth",
		Options: []notify.Field{{Name: "secret", Value: "0ption"}},
	}
	want := "webpush:" + target.Fingerprint()
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("m", "target", target)
	for _, shown := range []string{
		fmt.Sprint(target), fmt.Sprintf("%+v", target), fmt.Sprintf("%#v", target), fmt.Sprintf("%d", &target), fmt.Sprintf("%q", target), logged.String(),
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%s does not show %s", shown, want)
		}
		for _, secret := range []string{"s3cret", "k3y", "4uth", "0ption"} {
			if strings.Contains(shown, secret) {
				t.Errorf("%s shows %s", shown, secret)
			}
		}
	}
	other := target
	other.Address += "x"
	if len(target.Fingerprint()) != 12 || other.Fingerprint() == target.Fingerprint() {
		t.Errorf("fingerprints %s and %s", target.Fingerprint(), other.Fingerprint())
	}
}

func TestDeadError(t *testing.T) {
	cause := errors.New("answered 410 Unregistered")
	err := fmt.Errorf("apns: %w", &notify.DeadError{Err: cause})
	if backends.Reason(err) != "gone" || !errors.Is(err, cause) {
		t.Errorf("%v: reason %q", err, backends.Reason(err))
	}
	if want := "apns: answered 410 Unregistered: registration is gone"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}
