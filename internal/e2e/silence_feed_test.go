package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"eventpusher/internal/harness"
)

// talk has a user come online and write to another one, so that each feed has something
// to report.
func talk(t *testing.T, s *harness.XMPPServer) {
	t.Helper()
	alice := s.Login(t, "alice", "talks")
	alice.Presence()
	alice.Sendf("<message to='bob@%s' type='chat' id='t'>%s</message>", s.Domain, body("hello"))
	alice.Ping()
}

// unloaded are the signs that another feed has taken the place of the event-feed, whose
// module is taken out of a running server. Its users go on talking.
func unloaded(name, by string, unload func(s *harness.XMPPServer)) noticeable {
	return noticeable{
		name: name, once: `^eventpusher_feed_acks_total [1-9]`, // its events are on disk
		meanwhile: func(t *testing.T, s *harness.XMPPServer) {
			t.Helper()
			alice := s.Login(t, "alice", "talks on")
			tick := time.NewTicker(time.Second)
			go func() {
				defer tick.Stop()
				for alice.TrySend("<message to='bob@localhost' type='chat'>"+body("still there?")+"</message>") == nil {
					select {
					case <-t.Context().Done():
						return
					case <-tick.C:
					}
				}
			}()
			unload(s)
		},
		log:    "level=WARN.*feed that counted is not heard any more.*class=message feed=" + by + " before=event-feed.*set the server's event-feed feed up again",
		metric: `^eventpusher_feed_authority\{class="message",feed="` + by + `",host="localhost"\} 1`,
		doctor: "^FAIL +server .*not heard any more.*load the feed module again",
	}
}

// finds is the beginning of what a running instance logs about its feeds.
const finds = "level=(WARN|ERROR).*something is wrong.*subject="

// found is the metric of what a running instance finds.
func found(level, subject string) string {
	return `^eventpusher_findings\{level="` + level + `",subject="` + subject + `"\} [1-9]`
}

// unheard are the signs of a host without a feed.
func unheard(name, host string, n noticeable) noticeable {
	n.name = name
	n.log, n.metric = finds+host+".*no feed was heard.*event_feed_component.*set a feed up", found("WARN", host)
	n.doctor = "^WARN +" + host + " .*no feed was heard.*set a feed up"
	return n
}

var notDelegated = noticeable{
	name: "push without delegation", more: "[modules.mod_event_pusher.push]\n",
	log: finds + "localhost.*does not delegate.*mod_delegation", metric: found("WARN", "localhost"), doctor: "^WARN +localhost .*does not delegate",
}

var misspelt = noticeable{
	name: "a host that the server does not know", hosts: `"localhost", "locahost"`,
	log: finds + "locahost.*correct .general. hosts", metric: found("FAIL", "locahost"), doctor: "^FAIL +locahost .*correct .general. hosts",
}

// backWithout restarts a server whose configuration, the file of that name, has lost the
// parts that load the feed module.
func backWithout(name string, parts ...string) noticeable {
	return noticeable{
		name: "the server comes back without its module",
		once: `^eventpusher_feed_authority\{class="message",feed="event-feed",host="localhost"\} 1`,
		meanwhile: func(t *testing.T, s *harness.XMPPServer) {
			s.Stop()
			name := filepath.Join(s.Dir(), name)
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range parts {
				if !bytes.Contains(text, []byte(part)) {
					t.Fatalf("no %q in %s", part, text)
				}
				text = bytes.ReplaceAll(text, []byte(part), nil)
			}
			if err := os.WriteFile(name, text, 0o644); err != nil {
				t.Fatal(err)
			}
			s.Start()
		},
		log: finds + "server.*not heard any more.*load the feed module again", metric: `^eventpusher_feed_authority\{class="message",feed="event-feed",host="localhost"\} 0`,
		doctor: "^FAIL +server .*load the feed module again",
	}
}

// withoutTokens is configuration of a Prosody by which it loads a module from before
// tokens, as it was then.
func withoutTokens(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-xzf", "testdata/mod_event_feed-without-tokens.tar.gz", "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return fmt.Sprintf("plugin_paths = { %q }\n", dir)
}

// TestSilenceProsody breaks the feeds of a Prosody that the program attaches to.
func TestSilenceProsody(t *testing.T) {
	var started []*noticing
	elsewhere := []string{"other.localhost", "events.localhost"} // the first is the feeds' component
	for _, f := range []struct {
		options harness.ProsodyOptions
		row     noticeable
	}{
		{harness.ProsodyOptions{}, unheard("no module", "localhost", noticeable{meanwhile: talk})},
		{harness.ProsodyOptions{EventFeed: true, Components: elsewhere}, unheard("event_feed_component is another", "localhost", noticeable{meanwhile: talk})},
		{harness.ProsodyOptions{Firewall: true, Components: elsewhere}, unheard("firewall rules for another component", "localhost", noticeable{meanwhile: talk})},
		{harness.ProsodyOptions{}, unheard("feeds names one that was not granted", "localhost", noticeable{meanwhile: talk, component: `feeds = ["privilege"]`})},
		{
			harness.ProsodyOptions{EventFeed: true, Config: "VirtualHost \"second.localhost\"\n    modules_disabled = { \"event_feed\" }\n"},
			unheard("a host without the module", "second.localhost", noticeable{hosts: `"localhost", "second.localhost"`}),
		},
		{harness.ProsodyOptions{EventFeed: true}, notDelegated},
		{harness.ProsodyOptions{EventFeed: true}, misspelt},
		{
			harness.ProsodyOptions{EventFeed: true, Hosts: []string{"localhost", "second.localhost"}},
			noticeable{
				name: "a host that is not served",
				log:  "level=WARN.*second.localhost.*general.hosts", metric: found("WARN", "server"), doctor: "^WARN +server .*second.localhost.*general.hosts",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true, Hosts: []string{"first.localhost", "localhost"}},
			noticeable{
				name: "the module's first host is not served",
				log:  "level=WARN.*first.localhost.*general.hosts", metric: found("WARN", "server"), doctor: "^WARN +server .*first.localhost.*general.hosts",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true},
			noticeable{
				name: "the rooms are not served", component: `muc_hosts = ["rooms.localhost"]`,
				log: "level=WARN.*conference.localhost.*muc_hosts", metric: found("WARN", "server"), doctor: "^WARN +server .*conference.localhost.*muc_hosts",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true},
			noticeable{
				name: "no host is right", hosts: `"locahost"`,
				log: "level=WARN.*[^o]localhost.*general.hosts", metric: `^eventpusher_feed_unserved_hellos_total [1-9]`, doctor: "^WARN +server .*localhost.*general.hosts",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true},
			noticeable{
				name: "the host is no forwarder", component: `forwarders = ["elsewhere.localhost"]`,
				log: "level=WARN.*localhost.*component.forwarders", metric: `^eventpusher_feed_unserved_hellos_total [1-9]`, doctor: "^WARN +server .*localhost.*component.forwarders",
			},
		},
		{
			harness.ProsodyOptions{Firewall: true},
			noticeable{
				name: "the firewall's host is no forwarder", component: `forwarders = ["elsewhere.localhost"]`, meanwhile: talk,
				log: "level=WARN.*localhost.*component.forwarders", metric: `^eventpusher_stanzas_total\{.*trust="untrusted_forward".* [1-9]`, doctor: "^WARN +server .*localhost.*component.forwarders",
			},
		},
		{harness.ProsodyOptions{EventFeed: true}, backWithout("prosody.cfg.lua", `"event_feed"; `, `"event_feed"`)},
		{
			harness.ProsodyOptions{EventFeed: true, Config: withoutTokens(t)},
			noticeable{
				name: "tokens are required of an old module", component: `feed_token = "required"`,
				log: "level=WARN.*without a token.*install the current one", metric: `^eventpusher_feed_events_total\{result="no_token"\} [1-9]`,
				doctor: "^WARN +server .*without a token.*install the current one",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true, Firewall: true, Accounts: true},
			unloaded("the module is unloaded while the server runs", "firewall", func(s *harness.XMPPServer) {
				for _, host := range []string{"conference.localhost", "localhost"} {
					s.Shell("module", "unload", "event_feed", host)
				}
			}),
		},
		{
			harness.ProsodyOptions{EventFeed: true},
			noticeable{
				name: "feeds names another one than the server has", component: `feeds = ["firewall"]`, meanwhile: talk,
				log: finds + "localhost.*correct .component. feeds", metric: found("FAIL", "localhost"), doctor: "^FAIL +localhost .*correct .component. feeds",
			},
		},
		{
			harness.ProsodyOptions{Privilege: true},
			noticeable{
				name: "no feed for messages", meanwhile: talk,
				log: finds + "localhost.*never reports messages.*set a feed up", metric: found("WARN", "localhost"), doctor: "^WARN +localhost .*never reports messages",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true, Config: "event_feed_buffer_events = 10\n"},
			noticeable{
				name: "more happened than the module can keep", before: func(t *testing.T, s *harness.XMPPServer) {
					for range 5 {
						talk(t, s)
					}
				},
				log: finds + "localhost.*dropped.*event_feed_buffer_events", metric: `^eventpusher_feed_lost_events_total [1-9]`, doctor: "^WARN +localhost .*dropped",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true, Modules: []string{"time"}, Config: "local d = require \"util.datetime\"; local real = d.datetime\nd.datetime = function (t) return real((t or os.time()) - 7200) end\n"},
			noticeable{
				name: "a clock that is wrong",
				log:  finds + "localhost.*clock.*behind ours.*NTP", metric: found("WARN", "localhost"), doctor: "^WARN +localhost .*clock.*behind",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true, Config: "component_conflict_resolve = \"kick_old\"\n"},
			noticeable{
				name: "two instances that replace each other", meanwhile: func(t *testing.T, s *harness.XMPPServer) {
					await(t, "the first one", func() bool { return strings.Contains(s.Log(), "successfully authenticated") })
					s.AttachComponent(t, s.Component)
				},
				log: "level=WARN.*gave our place to another connection.*stop the other one", metric: connects("conflict"), doctor: "^(FAIL|WARN) +server .*stop the other one",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true},
			noticeable{
				name: "a server that hangs", component: `ping_interval = "1s"` + "\n" + `ping_timeout = "1s"` + "\n" + `handshake_timeout = "1s"`,
				meanwhile: func(t *testing.T, s *harness.XMPPServer) {
					await(t, "the link", func() bool { return strings.Contains(s.Log(), "successfully authenticated") })
					s.Pause()
				},
				log: "level=WARN.*did not answer a ping.*check the server", metric: connects("no_pong"), doctor: "^FAIL +server .*(did not answer|took the connection)",
			},
		},
		{
			harness.ProsodyOptions{EventFeed: true},
			noticeable{
				name: "a server that is stopped", meanwhile: func(t *testing.T, s *harness.XMPPServer) {
					await(t, "the link", func() bool { return strings.Contains(s.Log(), "successfully authenticated") })
					s.Stop()
				},
				log: "level=WARN.*start the XMPP server", metric: `^eventpusher_component_connected 0`, doctor: "^FAIL +server .*start the XMPP server",
			},
		},
	} {
		f.options.Users = users
		started = append(started, f.row.start(t, harness.Prosody(t, f.options)))
	}
	for _, c := range started {
		t.Run(c.name, c.check)
	}
}

// forge has a component without from check say hello as if it were the server's module,
// once a second until the end of the test.
func forge(t *testing.T, s *harness.XMPPServer) {
	t.Helper()
	liar := s.AttachComponent(t, "liar.localhost")
	tick := time.NewTicker(time.Second)
	go func() {
		defer tick.Stop()
		for {
			liar.Send("<message from='localhost' to='events.localhost'><hello xmlns='urn:eventpusher:feed:1' source='liar' epoch='e' first='1' next='1' hosts='localhost'/></message>")
			select {
			case <-t.Context().Done():
				return
			case <-tick.C:
			}
		}
	}()
}

// TestSilenceEjabberd does the same with one ejabberd, whose module serves the first
// component alone, and with one that loses its module.
func TestSilenceEjabberd(t *testing.T) {
	server := harness.Ejabberd(t, harness.EjabberdOptions{
		EventFeed: true, Users: users, Modules: "  mod_time: {}",
		Components: []string{"events.localhost", "push.localhost", "unheard.localhost", "direct.localhost", "shared.localhost", "liar.localhost"},
		Unchecked:  []string{"liar.localhost"},
	})
	server.AttachComponent(t, "shared.localhost") // answers nothing
	as := func(name string, n noticeable) noticeable {
		n.env = []string{"EVENTPUSHER_COMPONENT_NAME=" + name}
		n.address = func(s *harness.XMPPServer) string { return s.ComponentAddr(name) }
		return n
	}
	started := []*noticing{backWithout("ejabberd.yml", "  mod_event_feed:\n    component: \"events.localhost\"\n").
		start(t, harness.Ejabberd(t, harness.EjabberdOptions{EventFeed: true, Users: users}))}
	for _, row := range []noticeable{
		{
			name: "a component that speaks in the server's name", meanwhile: forge,
			log: "level=WARN.*without a token.*another component of the server", metric: `^eventpusher_feed_events_total\{result="no_token"\} [1-9]`,
			doctor: "^WARN +server .*without a token.*another component of the server",
		},
		as("push.localhost", notDelegated),
		as("unheard.localhost", unheard("the option component is another", "localhost", noticeable{meanwhile: talk})),
		as("direct.localhost", misspelt),
		as("shared.localhost", noticeable{
			name: "two instances that share the stanzas",
			log:  finds + "server.*stop the other program", metric: found("WARN", "server"), doctor: "^(WARN|FAIL) +server .*did not come back",
		}),
	} {
		started = append(started, row.start(t, server))
	}
	shell := harness.NewErlangShell(t)
	started = append(started, unloaded("the module is stopped while the server runs", "service_log", func(*harness.XMPPServer) {
		shell.Run(`gen_mod:stop_module(<<"localhost">>, mod_event_feed)`)
	}).start(t, harness.Ejabberd(t, harness.EjabberdOptions{EventFeed: true, ServiceLog: true, Users: users, Eval: shell.Eval("")})))
	for _, c := range started {
		t.Run(c.name, c.check)
	}
}
