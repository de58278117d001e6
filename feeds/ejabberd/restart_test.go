//go:build linux

package ejabberd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

func TestRestarts(t *testing.T) {
	t.Parallel()
	erlang := harness.NewErlangShell(t)
	s := harness.Ejabberd(t, harness.EjabberdOptions{
		EventFeed: true, Eval: erlang.Eval(""), Hosts: []string{"localhost", "second.localhost"},
	})
	c := attach(t, s)
	login := func(user, resource string) *harness.Client {
		client := s.Login(t, user, resource) // beyond the subtest
		client.Presence()
		return client
	}
	alice := login("alice", "r1")
	chat(alice, "bob@localhost", 1, 3)
	c.snapshot("first")

	t.Run("one source for two hosts", func(t *testing.T) {
		if got := c.hellos[len(c.hellos)-1].Hosts; !strings.HasPrefix(got, "localhost second.localhost ") {
			t.Errorf("hosts %q", got)
		}
		got := c.step(func() {
			ann := s.Login(t, "alice@second.localhost", "r1")
			ann.Send("<message type='chat' id='x1' to='alice@localhost'><body>Across</body></message>")
			alice.WaitFor("x1")
			ann.CloseStream()
			c.await("session-end", "alice@second.localhost", 1)
		})
		want := []string{
			"session-start alice@second.localhost/r1",
			"message-sent alice@second.localhost/r1 to=alice@localhost [message Across]",
			"session-end alice@second.localhost/r1 reason=closed",
		}
		if diff := cmp.Diff(want, lines(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, e := range got {
			if e.Host != "second.localhost" {
				t.Errorf("%s came from %s", e.line(), e.Host)
			}
		}
	})

	t.Run("the component is killed and comes back", func(t *testing.T) {
		from := c.count()
		c.disconnect()
		chat(alice, "bob@localhost", 10, 20)
		c.connect()
		c.snapshot("back")
		if diff := cmp.Diff(numbers(10, 20), bodies(c.since(from))); diff != "" {
			t.Errorf("bodies (-want +got):\n%s", diff)
		}
	})

	t.Run("another connection of the component", func(t *testing.T) {
		// The new connection is told, although the old one is still there.
		old, ended := c.conn, c.ended
		c.connect()
		c.snapshot("new connection")
		old.Close()
		<-ended
		from := c.count()
		chat(alice, "bob@localhost", 40, 5)
		c.snapshot("old one gone")
		if diff := cmp.Diff(numbers(40, 5), bodies(c.since(from))); diff != "" {
			t.Errorf("bodies (-want +got):\n%s", diff)
		}
	})

	t.Run("other options without a restart", func(t *testing.T) {
		hellos := 0
		c.locked(func() { c.ackEvery, hellos = 1, len(c.hellos) })
		reload(t, erlang, 3)
		c.until("another hello", func() bool { return len(c.hellos) > hellos })
		c.locked(func() { c.widest = 0 })
		from := c.count()
		chat(alice, "bob@localhost", 90, 30)
		c.snapshot("reloaded")
		if diff := cmp.Diff(numbers(90, 30), bodies(c.since(from))); diff != "" || c.widest > 3 {
			t.Errorf("%d events without an acknowledgement; bodies (-want +got):\n%s", c.widest, diff)
		}
	})

	t.Run("a stanza that is no XML goes without itself", func(t *testing.T) {
		from := c.count()
		erlang.Run(`ejabberd_router:route(xmpp:decode({xmlel, <<"message">>,
			[{<<"from">>, <<"x@other.example/y">>}, {<<"to">>, <<"carol@localhost">>}, {<<"type">>, <<"chat">>}],
			[{xmlel, <<"body">>, [], [{xmlcdata, <<"a", 1, "b">>}]}]}))`)
		<-c.ended
		c.connect()
		c.snapshot("after it")
		made := c.since(from)
		i := slices.IndexFunc(made, func(e event) bool { return e.Kind == "message-received" })
		if i < 0 || made[i].Stanza != "" || made[i].To != "carol@localhost" {
			t.Errorf("events %v", lines(made))
		}
	})

	t.Run("a clean restart loses nothing", func(t *testing.T) {
		from, epoch := c.count(), c.epoch
		c.disconnect()
		login("bob", "desk")
		chat(alice, "bob@localhost", 50, 7)
		s.Stop()
		if info, err := os.Stat(filepath.Join(s.Dir(), "db", "event_feed.ring")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("who may read what is kept: %v, %v", info, err)
		}
		s.Start()
		c.connect()
		c.snapshot("restarted")
		if c.epoch != epoch || c.hellos[len(c.hellos)-1].PrevEpoch != "" {
			t.Errorf("epoch %s, before %s: %+v", c.epoch, epoch, c.hellos[len(c.hellos)-1])
		}
		got := lines(c.since(from))
		for i := range got { // ejabberd 26.07 stops some sessions' processes before it tells them why
			got[i] = strings.Replace(got[i], "reason=server", "reason=system-shutdown", 1)
		}
		for _, want := range []string{
			"message-sent alice@localhost/r1 to=bob@localhost [message 56]",
			"offline alice@localhost/r1 [presence unavailable]",
			"session-end alice@localhost/r1 reason=system-shutdown",
			"offline bob@localhost/desk [presence unavailable]",
			"session-end bob@localhost/desk reason=system-shutdown",
		} {
			if n := strings.Count(strings.Join(got, "\n")+"\n", want+"\n"); n != 1 {
				t.Errorf("%d times %s", n, want)
			}
		}
		if i, j := slices.Index(got, "offline alice@localhost/r1 [presence unavailable]"), slices.Index(got, "session-end alice@localhost/r1 reason=system-shutdown"); i > j {
			t.Errorf("offline after session-end: %v", got)
		}
		alice = login("alice", "r1")
	})

	t.Run("a kill begins another epoch", func(t *testing.T) {
		epoch := c.epoch
		chat(alice, "bob@localhost", 60, 3)
		c.disconnect()
		s.Kill()
		s.Start()
		c.connect()
		c.until("a hello", func() bool {
			h := c.hellos[len(c.hellos)-1]
			return h.Epoch != epoch && h.PrevEpoch == epoch && h.Clean == "false"
		})
		alice = login("alice", "r1")
		from := c.count()
		chat(alice, "bob@localhost", 70, 3)
		c.snapshot("killed")
		if diff := cmp.Diff(numbers(70, 3), bodies(c.since(from))); diff != "" {
			t.Errorf("bodies (-want +got):\n%s", diff)
		}
	})

	t.Run("the process of a session is killed", func(t *testing.T) {
		login("bob", "killed")
		got := c.step(func() {
			if got := erlang.Run(`exit(ejabberd_sm:get_session_pid(<<"bob">>, <<"localhost">>, <<"killed">>), kill)`); got != "{ok,true}" {
				t.Fatal(got)
			}
			c.await("session-end", "bob@localhost", 1)
		})
		want := []string{"offline bob@localhost/killed [presence unavailable]", "session-end bob@localhost/killed reason=server"}
		if diff := cmp.Diff(want, lines(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, e := range c.snapshot("killed session") {
			if e.User == "bob@localhost/killed" {
				t.Errorf("a dead session: %s", e.line())
			}
		}
	})

	t.Run("users do not notice the death of the source", func(t *testing.T) {
		epoch := c.epoch
		bob := login("bob", "desk")
		c.snapshot("bob")
		// A message that comes while there is no source is in no epoch.
		erlang.Run(`exit(whereis(mod_event_feed_source), kill)`)
		chat(alice, "bob@localhost", 80, 3)
		bob.WaitFor("<body>82</body>")
		c.until("a hello", func() bool {
			h := c.hellos[len(c.hellos)-1]
			return h.Epoch != epoch && h.PrevEpoch == epoch && h.Clean == "false"
		})
		users := make(map[string]string)
		for _, e := range c.snapshot("source") {
			users[e.User] = e.line()
		}
		want := map[string]string{
			"alice@localhost/r1": "snapshot alice@localhost/r1 [presence ]",
			"bob@localhost/desk": "snapshot bob@localhost/desk [presence ]",
		}
		if diff := cmp.Diff(want, users); diff != "" {
			t.Errorf("snapshot (-want +got):\n%s", diff)
		}
	})
	c.sound()
}

// reload is ejabberdctl reload_config with another window.
func reload(t *testing.T, erlang *harness.ErlangShell, window int) {
	t.Helper()
	got := erlang.Run(fmt.Sprintf(`mod_event_feed:reload(<<"localhost">>, maps:put(window, %d,
		gen_mod:get_module_opts(<<"localhost">>, mod_event_feed)), #{})`, window))
	if got != "{ok,ok}" {
		t.Fatal(got)
	}
}

// TestSetBack restores the feed's files from a backup: numbers that the component has are
// given again, to other events, and none of these may pass for one that it has.
func TestSetBack(t *testing.T) {
	t.Parallel()
	s := harness.Ejabberd(t, harness.EjabberdOptions{EventFeed: true})
	c := attach(t, s)
	client := func() *harness.Client { return s.Login(t, "alice", "r1") }
	chat(client(), "bob@localhost", 1, 3)
	c.snapshot("first")
	backup := t.TempDir()
	// Of what was said since then; what the backup had may come once more, which no
	// module can know.
	since := func(from, first int) []string {
		return slices.DeleteFunc(bodies(c.since(from)), func(body string) bool {
			n, err := strconv.Atoi(body)
			return err == nil && n < first
		})
	}
	for i, again := range []int{
		30, // more than the component has by then, as it seems
		0,  // less
	} {
		base := 1000 * (i + 1)
		c.disconnect()
		chat(client(), "bob@localhost", 100, 2) // kept over the restart
		s.Stop()
		files(t, filepath.Join(s.Dir(), "db"), backup)
		s.Start()
		c.connect()
		chat(client(), "bob@localhost", 200, 10)
		c.snapshot(fmt.Sprint("later ", i))
		epoch := c.epoch
		c.disconnect()
		s.Kill()
		files(t, backup, filepath.Join(s.Dir(), "db"))
		s.Start()
		from := c.count()
		alice := client()
		chat(alice, "bob@localhost", base, again)
		c.connect()
		c.snapshot(fmt.Sprint("set back ", i))
		chat(alice, "bob@localhost", base+500, 2)
		c.snapshot(fmt.Sprint("goes on ", i))
		if diff := cmp.Diff(append(numbers(base, again), numbers(base+500, 2)...), since(from, base)); diff != "" {
			t.Errorf("%d: bodies (-want +got):\n%s", again, diff)
		}
		if h := c.hellos[len(c.hellos)-1]; h.Epoch == epoch || h.PrevEpoch != epoch || h.Clean != "false" {
			t.Errorf("%d: epoch %s, then %+v", again, epoch, h)
		}
	}
	t.Run("the component has lost what it had", func(t *testing.T) {
		c.disconnect()
		s.Stop()
		s.Start()
		epoch := c.epoch
		c.locked(func() { c.epoch, c.last = "", 0 })
		c.connect()
		c.until("a new epoch", func() bool { return c.hellos[len(c.hellos)-1].Epoch != epoch })
		from := c.count()
		chat(client(), "bob@localhost", 3000, 2)
		c.snapshot("nothing known")
		if diff := cmp.Diff(numbers(3000, 2), since(from, 3000)); diff != "" {
			t.Errorf("bodies (-want +got):\n%s", diff)
		}
	})
	c.sound()
}

// files copies the feed's files.
func files(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"event_feed.ring", "event_feed.epoch"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Installation in the way of ejabberdctl module_install, which calls ext_mod,
// while users are there.
func TestModuleInstall(t *testing.T) {
	t.Parallel()
	modules := t.TempDir()
	sources := filepath.Join(modules, "sources", "mod_event_feed")
	for _, part := range []string{"src", "include", "conf"} {
		if err := os.CopyFS(filepath.Join(sources, part), os.DirFS(part)); err != nil {
			t.Fatal(err)
		}
	}
	spec, err := os.ReadFile("mod_event_feed.spec")
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(sources, "conf", "mod_event_feed.yml")
	example, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		filepath.Join(sources, "mod_event_feed.spec"): string(spec),
		conf: strings.ReplaceAll(string(example), "example.org", "localhost"),
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	erlang := harness.NewErlangShell(t)
	s := harness.Ejabberd(t, harness.EjabberdOptions{
		Eval: erlang.Eval(fmt.Sprintf(`os:putenv("CONTRIB_MODULES_PATH", %q),`, modules)),
	})
	c := attach(t, s)
	alice := s.Login(t, "alice", "r1")
	alice.Send("<presence><show>xa</show></presence>")
	bob := s.Login(t, "bob", "desk")
	bob.Ping()

	if got := erlang.Run(`ext_mod:install(<<"mod_event_feed">>)`); got != "{ok,ok}" {
		t.Fatalf("install: %s\n%s", got, s.Log())
	}
	want := []string{"snapshot alice@localhost/r1 [presence xa]", "snapshot bob@localhost/desk"}
	if diff := cmp.Diff(want, lines(c.snapshot("installed"))); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
	epoch := c.epoch
	c.disconnect()
	chat(alice, "bob@localhost", 1, 5)

	// The events wait for the new code, and so do the sessions.
	if got := erlang.Run(`ext_mod:upgrade(<<"mod_event_feed">>)`); got != "{ok,ok}" {
		t.Fatalf("upgrade: %s\n%s", got, s.Log())
	}
	bob.CloseStream()
	chat(alice, "bob@localhost", 6, 5)
	from := c.count()
	c.connect()
	if diff := cmp.Diff([]string{want[0]}, lines(c.snapshot("upgraded"))); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(numbers(1, 10), bodies(c.since(from))); diff != "" || c.epoch != epoch {
		t.Errorf("epoch %s, before %s; bodies (-want +got):\n%s", c.epoch, epoch, diff)
	}
	if got := erlang.Run(`ext_mod:uninstall(<<"mod_event_feed">>)`); got != "{ok,ok}" {
		t.Fatalf("uninstall: %s\n%s", got, s.Log())
	}
	chat(alice, "alice@localhost", 11, 1)
	alice.WaitFor("<body>11</body>")
	c.sound()
}
