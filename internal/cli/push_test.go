package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/store"
	"eventpusher/internal/control"
	"eventpusher/internal/finding"
	"eventpusher/internal/jid"
	"eventpusher/pusher/outbox/outboxtest"
)

// pushSetup returns a configuration with push, and the directory of its outbox,
// where alice has three registrations.
func pushSetup(t *testing.T) (path, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "outbox")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	kept, err := store.OpenRegistrations(filepath.Join(dir, store.RegistrationsFile), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	for _, s := range []store.Service{
		{PubSub: "push.example.net", Node: "one", Options: []notify.Field{{Name: "secret", Value: "hunter2"}, {Name: "topic", Value: "hunter2"}}},
		{PubSub: "push.example.net", Node: "two", Rules: &decide.UserRules{Muted: map[jid.JID]int64{"hunter2@x": 0}, Rooms: map[jid.JID]string{"hunter2@y": "hunter2"}}},
		{PubSub: "virtual.example.org", Node: "-t\x1bhree", Options: []notify.Field{{Name: "device_id", Value: "hunter2"}}},
	} {
		if err := kept.Enable(context.Background(), "alice@example.org", s); err != nil {
			t.Fatal(err)
		}
	}
	return write(t, fmt.Sprintf(`
[component]
name = "events.example.org"
secret = "hunter2"
[general]
hosts = ["example.org"]
[outbox]
path = %q
[modules.mod_event_pusher.push]
virtual_pubsub_hosts = ["virtual.@HOST@"]
`, dir)), dir
}

func TestPushExplainAlone(t *testing.T) {
	path, _ := pushSetup(t)
	code, stdout, stderr := invoke("push", "explain", "Alice@Example.org/phone", "-config", path)
	want := `alice@example.org has 3 registrations
SERVICE              NODE     GOES BY  OPTIONS
push.example.net     one      iq       secret, topic
push.example.net     two      iq       - (rules: muted 1; rooms 1 (mentions only: 1))
virtual.example.org  -t?hree  gateway  device_id
no instance runs; what was decided about messages only a running one knows
`
	if diff := cmp.Diff(want, stdout); diff != "" {
		t.Error(diff)
	}
	if code != 0 || strings.Contains(stdout+stderr, "hunter2") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}

	code, stdout, stderr = invoke("push", "explain", "-json", "-config", path, "bob@elsewhere.org")
	var e push.Explanation
	if err := json.Unmarshal([]byte(stdout), &e); err != nil || code != 0 || e.User != "bob@elsewhere.org" || len(e.Registrations) != 0 || e.Decisions != nil {
		t.Errorf("%v, exit code %d:\n%s%s", err, code, stdout, stderr)
	}
	if _, stdout, _ = invoke("push", "explain", "-config", path, "bob@elsewhere.org"); !strings.Contains(stdout, "none of [general] hosts") {
		t.Errorf("a user of nowhere:\n%s", stdout)
	}
}

// TestPushExplainDevices: devices that are registered here are listed, by what nobody can use.
func TestPushExplainDevices(t *testing.T) {
	path, dir := pushSetup(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	account := write(t, pushtest.StartFCM(t, time.Hour).ServiceAccount(t).Reveal())
	path = write(t, string(text)+fmt.Sprintf("[[push.app]]\nname = \"chat\"\n[push.app.fcm]\ncredentials_file = %q\n", account))
	explain := func() string {
		t.Helper()
		code, stdout, stderr := invoke("push", "explain", "-config", path, "alice@example.org")
		if code != 0 || strings.Contains(stdout+stderr, "hunter2") {
			t.Errorf("exit code %d: %s%s", code, stdout, stderr)
		}
		return stdout
	}
	if got := explain(); strings.Contains(got, "here") {
		t.Errorf("before there was a device:\n%s", got)
	}
	if _, err := os.Stat(filepath.Join(dir, store.DevicesFile)); err == nil {
		t.Error("looking has made a store")
	}
	kept, err := store.OpenDevices(filepath.Join(dir, store.DevicesFile), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, err := kept.Put(t.Context(), store.Device{Owner: "alice@example.org", App: "chat", Target: notify.Target{Kind: notify.FCM, Address: "hunter2"}}, time.Unix(1_600_000_000, 0))
	if err = errors.Join(err, kept.Close()); err != nil {
		t.Fatal(err)
	}
	if got := explain(); !strings.Contains(got, "has 1 device registered here\n") || !strings.Contains(got, c.Node+"  chat  fcm   2020-09-13T12:26:40Z") || strings.Contains(got, c.Secret) {
		t.Errorf("explained as\n%s", got)
	}
}

func TestPushDisableAlone(t *testing.T) {
	path, dir := pushSetup(t)
	for _, step := range []struct {
		args []string
		says string
		left int
	}{
		{[]string{"bob@example.org"}, "0 registrations removed", 3},
		{[]string{"alice@example.org", "push.example.net", "three"}, "0 registrations removed", 3},
		{[]string{"--", "alice@example.org", "virtual.example.org", "-t\x1bhree"}, "1 registration removed", 2},
		{[]string{"alice@example.org", "Push.example.net/x", "two"}, "1 registration removed", 1},
		{[]string{"alice@example.org"}, "1 registration removed", 0},
	} {
		code, stdout, stderr := invoke(append([]string{"push", "disable", "-config", path}, step.args...)...)
		if code != 0 || stdout != step.says+"\n" {
			t.Errorf("%q: exit code %d, %s%s", step.args, code, stdout, stderr)
		}
		kept, err := store.InspectRegistrations(filepath.Join(dir, store.RegistrationsFile))
		if err != nil {
			t.Fatal(err)
		}
		if left, err := kept.Services(t.Context(), "alice@example.org"); len(left) != step.left || err != nil {
			t.Errorf("%q: %d left, %v", step.args, len(left), err)
		}
		kept.Close()
	}
}

func TestPushUsage(t *testing.T) {
	path, dir := pushSetup(t)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"explain nobody":   {[]string{"explain", "-config", path}, 2, "say who"},
		"explain two":      {[]string{"explain", "-config", path, "a@b", "c@d"}, 2, "say who"},
		"explain a host":   {[]string{"explain", "-config", path, "example.org"}, 2, "is no user"},
		"disable nobody":   {[]string{"disable", "-config", path}, 2, "say whose"},
		"disable too much": {[]string{"disable", "-config", path, "a@b", "c", "d", "e"}, 2, "say whose"},
		"an empty service": {[]string{"disable", "-config", path, "a@b", ""}, 2, "service"},
		"an empty node":    {[]string{"disable", "-config", path, "a@b", "c", ""}, 2, "node"},
		"without push":     {[]string{"explain", "-config", write(t, good), "a@b"}, 1, "not configured"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := invoke(append([]string{"push"}, c.args...)...)
			if code != c.code || !strings.Contains(stderr, c.says) || stdout != "" {
				t.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
		})
	}
	// No instance had push: there is no store, and none is made by asking.
	if err := os.Rename(filepath.Join(dir, store.RegistrationsFile), filepath.Join(dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	for command, says := range map[string]string{"explain": "alice@example.org has 0 registrations", "disable": "0 registrations removed"} {
		if code, stdout, stderr := invoke("push", command, "-config", path, "alice@example.org"); code != 0 || !strings.Contains(stdout, says) {
			t.Errorf("exit code %d: %s%s", code, stdout, stderr)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// pushInstance is a running one as far as push goes; who asks for another user than alice
// is told an error.
type pushInstance struct{ removed chan string }

func (pushInstance) Explain(_ context.Context, user jid.JID) (push.Explanation, error) {
	if user != "alice@example.org" {
		return push.Explanation{}, errors.New("the database is down")
	}
	return push.Explanation{
		User: user, Registrations: []push.Registered{{Service: "push.example.net", Node: "n", By: push.ByGateway, Lacks: []string{"device_id", "service"}}},
		Devices: []push.OwnDevice{
			{Node: "0a1b", App: "chat", Kind: "fcm", Created: time.Unix(1_600_000_000, 0), Registered: time.Unix(1_650_000_000, 0), Used: time.Unix(1_700_000_000, 0)},
			{Node: "0c", App: "chat", Kind: "webpush", Created: time.Unix(1_600_000_000, 0), Registered: time.Unix(1_600_000_000, 0)},
		},
		Decisions: []journal.Decision{
			{Time: time.Unix(1_700_000_000, 0).UTC(), EventID: "e17", Outcome: "online"},
			{Time: time.Unix(1_700_000_001, 0).UTC(), EventID: "e18", Outcome: "pushed", Service: "push.example.net", Node: "\x1bn", Count: 3},
		},
		Feeds: map[string]string{"offline": "event-feed", "message": "event-feed"},
	}, nil
}

func (i pushInstance) Remove(_ context.Context, user, service jid.JID, node string) (int, error) {
	i.removed <- fmt.Sprint(user, " ", service, " ", node)
	return 2, nil
}

func TestPushAsksTheInstance(t *testing.T) {
	path, dir := pushSetup(t)
	server, err := control.Listen(dir, kept{outboxtest.Open(t)}, func(context.Context) []finding.Finding { return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	i := pushInstance{make(chan string, 1)}
	server.HandlePush(i)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	code, stdout, stderr := invoke("push", "explain", "-config", path, "alice@example.org")
	want := `alice@example.org has 1 registration
SERVICE           NODE  GOES BY  OPTIONS
push.example.net  n     gateway  - (lacks device_id, service)
alice@example.org has 2 devices registered here
DEVICE  APP   KIND     CREATED               REGISTERED            USED
0a1b    chat  fcm      2020-09-13T12:26:40Z  2022-04-15T05:20:00Z  2023-11-14
0c      chat  webpush  2020-09-13T12:26:40Z  2020-09-13T12:26:40Z  never
feeds of example.org: message by event-feed, offline by event-feed
DECIDED               EVENT  SERVICE           NODE  TIMES  OUTCOME  WHICH MEANS
2023-11-14T22:13:20Z  e17    -                 -     1      online   the user has a session
2023-11-14T22:13:21Z  e18    push.example.net  ?n    3      pushed   the service has taken it
`
	if diff := cmp.Diff(want, stdout); diff != "" || code != 0 {
		t.Errorf("exit code %d, %s\n%s", code, stderr, diff)
	}
	if code, stdout, stderr = invoke("push", "explain", "-config", path, "bob@example.org"); code != 1 || !strings.Contains(stderr, "the database is down") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = invoke("push", "disable", "-config", path, "alice@example.org", "push.example.net"); code != 0 || stdout != "2 registrations removed\n" {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	if got := <-i.removed; got != "alice@example.org push.example.net " {
		t.Errorf("removed %q", got)
	}
}
