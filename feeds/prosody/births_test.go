//go:build linux

package prosody_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/harness"
)

// program is eventpusher, attached to a server.
type program struct {
	t     *testing.T
	admin string
}

// attachProgram runs the program until the test ends.
func attachProgram(t *testing.T, s *harness.XMPPServer) *program {
	t.Helper()
	cfg, problems := config.Parse(fmt.Appendf(nil, `
[component]
address = %q
name = "events.localhost"
secret = "secret"
[general]
hosts = ["localhost"]
[admin]
listen = "127.0.0.1:0"
[outbox]
path = %q
`, s.ComponentAddr(s.Component), t.TempDir()), nil, t.TempDir())
	if cfg == nil {
		t.Fatalf("configuration: %v", problems)
	}
	var log strings.Builder // read when the program has ended
	a, err := app.New(cfg, app.Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("the program's log:\n%s", log.String())
		}
	})
	p := &program{t: t, admin: "http://" + a.AdminAddr().String()}
	p.await("readiness", func() bool { status, _ := p.get("/readyz"); return status == http.StatusOK })
	return p
}

func (p *program) await(what string, done func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(waitLimit); !done(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited %v for %s", waitLimit, what)
		}
	}
}

func (p *program) get(path string) (status int, body string) {
	p.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}, Timeout: waitLimit}
	resp, err := client.Get(p.admin + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// figures returns the program's counters, by name and labels.
func (p *program) figures() map[string]int {
	p.t.Helper()
	_, text := p.get("/metrics")
	all := make(map[string]int)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if n, err := strconv.Atoi(value); err == nil {
			all[name+"}"] = n
		}
	}
	return all
}

const (
	chatIn   = `eventpusher_events_total{direction="in",kind="chat"}`
	chatOut  = `eventpusher_events_total{direction="out",kind="chat"}`
	statuses = `eventpusher_events_total{direction="",kind="user_status"}`
	buried   = `eventpusher_dead_letters_total{backend="",reason="undecodable"}`
)

// births are the ways in which a message can come into being; docs/servers/prosody.md
// says what comes of them.
type births struct {
	t                             *testing.T
	s                             *harness.XMPPServer
	alice, bob, phone, erin, mark *harness.Client
	component                     *harness.Client
	remote                        *harness.RemoteServer
	marks                         int
}

const elsewhere = "someone@other.localhost"

// birthServer starts a Prosody with everything that can make a message.
func birthServer(t *testing.T, o harness.ProsodyOptions) *harness.XMPPServer {
	o.Users = []string{"alice", "bob", "carol", "dave", "erin"}
	o.Modules = []string{"mam", "blocklist", "pep", "feed_probe"}
	o.PluginPaths = []string{"feeds/prosody/testdata/plugins"}
	o.Components = []string{"events.localhost", "other.localhost"}
	o.Privilege, o.Federation = true, true
	o.Config = "archive_expires_after = 'never'\nvalidate_from_addresses = false"
	return harness.Prosody(t, o)
}

// settle brings about what the births start from.
func (b *births) settle() {
	t, s := b.t, b.s
	b.component, b.remote = s.AttachComponent(t, "other.localhost"), s.Federate(t)
	b.alice, b.bob, b.phone = s.Login(t, "alice", "r1"), s.Login(t, "bob", "desk"), s.Login(t, "bob", "phone")
	b.erin, b.mark = s.Login(t, "erin", "r1"), s.Login(t, "dave", "mark")
	tablet := s.Login(t, "alice", "tablet")
	for _, c := range []*harness.Client{b.alice, b.bob, b.phone, tablet} {
		c.EnableCarbons()
		c.Presence()
	}
	b.bob.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='erin@localhost'/><item jid='spam@other.localhost'/></block>")
	b.alice.Join("hall", "ally")
	b.bob.Join("hall", "bobby")
	b.other("<presence from='eve@other.localhost/r' to='hall@%s/eve'><x xmlns='http://jabber.org/protocol/muc'/></presence>", s.MUC)
	b.publish(1)
	b.bob.IQ("set", "alice@localhost", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='urn:t' jid='bob@localhost'/></pubsub>")
}

func (b *births) other(format string, args ...any) {
	b.component.Sendf(format, args...)
	settled(b.t, b.component)
}

// publish has alice's account notify those who have subscribed to what she publishes.
func (b *births) publish(item int) {
	b.alice.IQ("set", "", fmt.Sprintf("<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:t'><item id='%d'><x xmlns='urn:t'/></item></publish>"+
		"<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>"+
		"<field var='pubsub#access_model'><value>open</value></field></x></publish-options></pubsub>", item))
}

// api has a module of the server send a message.
func (b *births) api(from, to string) {
	probe2 := fmt.Sprintf("<message xmlns='jabber:client' from='%s' to='%s' type='chat'><body>Hello</body></message>", from, to)
	b.mark.IQ("set", "localhost", "<do xmlns='urn:test:probe' what='send'>"+probe2+"</do>")
}

func hello(from, to, kind string) string {
	return fmt.Sprintf("<message from='%s' to='%s' type='%s' id='h'><body>Hello</body></message>", from, to, kind)
}

func (b *births) privileged(from, to string) {
	b.other("<message from='other.localhost' to='localhost'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'>%s</forwarded></privilege></message>",
		strings.Replace(hello(from, to, "chat"), "<message", "<message xmlns='jabber:client'", 1))
}

func (b *births) foreign(to string) {
	b.remote.Send(hello("eve@"+b.remote.Domain+"/r", to, "chat"))
	b.remote.Ping("localhost")
}

func (b *births) say(c *harness.Client, to, kind string) {
	c.Sendf("<message to='%s' type='%s' id='h'><body>Hello</body></message>", to, kind)
	c.Ping()
}

var allBirths = map[string]func(b *births){
	"a client writes to a user who is online, with two devices":     func(b *births) { b.say(b.alice, "bob@localhost", "chat") },
	"a client writes to a user who is offline":                      func(b *births) { b.say(b.alice, "carol@localhost", "chat") },
	"a client writes to a user who blocks it":                       func(b *births) { b.say(b.erin, "bob@localhost", "chat") },
	"a client writes to an account that does not exist":             func(b *births) { b.say(b.alice, "nobody@localhost", "chat") },
	"a client writes to another server or component":                func(b *births) { b.say(b.alice, elsewhere, "chat") },
	"a client sends an alert (`headline`) to a user who is offline": func(b *births) { b.say(b.alice, "carol@localhost", "headline") },
	"a client speaks in a room with two local occupants":            func(b *births) { b.say(b.alice, "hall@"+b.s.MUC, "groupchat") },
	"a client writes to an occupant of a room, in private":          func(b *births) { b.say(b.alice, "hall@"+b.s.MUC+"/bobby", "chat") },
	"somebody from elsewhere speaks in that room": func(b *births) {
		b.other("%s", hello("eve@other.localhost/r", "hall@"+b.s.MUC, "groupchat"))
	},
	"a component or gateway writes in the name of its own users":   func(b *births) { b.other("%s", hello(elsewhere, "bob@localhost", "chat")) },
	"the same, to a user who blocks it":                            func(b *births) { b.other("%s", hello("spam@other.localhost", "bob@localhost", "chat")) },
	"the same, to an account that does not exist":                  func(b *births) { b.other("%s", hello(elsewhere, "nobody@localhost", "chat")) },
	"a gateway writes in a local user's name (XEP-0356)":           func(b *births) { b.privileged("alice@localhost", "bob@localhost") },
	"the same, to its own users: what was written in its network":  func(b *births) { b.privileged("alice@localhost", elsewhere) },
	"a component without from check writes in a local user's name": func(b *births) { b.other("%s", hello("alice@localhost", "bob@localhost", "chat")) },
	"the same, in the server's name":                               func(b *births) { b.other("%s", hello("localhost", "bob@localhost", "chat")) },
	"the server's API writes in a local user's name":               func(b *births) { b.api("alice@localhost", "bob@localhost") },
	"the same, to another server or component":                     func(b *births) { b.api("alice@localhost", "someone@elsewhere.example") },
	"the server itself writes to a user":                           func(b *births) { b.api("localhost", "bob@localhost") },
	"the server notifies of what a user has published (XEP-0163)":  func(b *births) { b.publish(2) },
	"another server's user writes to a user":                       func(b *births) { b.foreign("bob@localhost") },
	"the same, to an account that does not exist there":            func(b *births) { b.foreign("nobody@localhost") },
	"a stored message is handed over": func(b *births) {
		b.s.Login(b.t, "carol", "home").Presence()
	},
	"the archive is asked": func(b *births) { b.bob.IQ("set", "", "<query xmlns='urn:xmpp:mam:2' queryid='q'/>") },
	"an error is sent back": func(b *births) {
		b.alice.Send("<message to='bob@localhost' type='error' id='h'><error type='cancel'/></message>")
		b.alice.Ping()
	},
}

// after does something and returns by how much the counters have grown.
func (b *births) after(p *program, act func()) map[string]int {
	b.t.Helper()
	before := p.figures()
	act()
	// A login is reported behind all that was reported before.
	b.mark.Send("<presence type='unavailable'/>")
	b.mark.Presence()
	b.marks += 2
	var grown map[string]int
	p.await("a login", func() bool {
		grown = p.figures()
		return grown[statuses] >= before[statuses]+2
	})
	// Dead letters are counted when they are on disk, which may be later.
	for range 20 {
		last := grown
		time.Sleep(100 * time.Millisecond)
		if grown = p.figures(); maps.Equal(last, grown) {
			break
		}
	}
	for name := range grown {
		grown[name] -= before[name]
	}
	return grown
}

var tableRow = regexp.MustCompile(`(?m)^\| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$`)

// birthTable reads what docs/servers/prosody.md says: for each birth a cell for each feed.
func birthTable(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/servers/prosody.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "| a message is born | event_feed | firewall | privilege |\n|---|---|---|---|\n")
	if !ok {
		t.Fatal("docs/servers/prosody.md has no table of births")
	}
	section, _, _ = strings.Cut(section, "\n\n")
	table := make(map[string][]string)
	for _, row := range tableRow.FindAllStringSubmatch(section, -1) {
		table[row[1]] = row[2:]
	}
	return table
}

// TestBirths holds the table of docs/servers/prosody.md against a real server and the
// program: which messages make which events, by each feed.
func TestBirths(t *testing.T) {
	t.Parallel()
	table := birthTable(t)
	names := slices.Sorted(maps.Keys(allBirths))
	if documented := slices.Sorted(maps.Keys(table)); !slices.Equal(names, documented) {
		t.Fatalf("the table has the rows\n%s\nand the test\n%s", strings.Join(documented, "\n"), strings.Join(names, "\n"))
	}
	for column, feed := range []struct {
		name    string
		options harness.ProsodyOptions
	}{
		{"event_feed", harness.ProsodyOptions{EventFeed: true}},
		{"firewall", harness.ProsodyOptions{FirewallRules: []string{"docs/servers/events.pfw"}}},
		{"privilege", harness.ProsodyOptions{}},
	} {
		t.Run(feed.name, func(t *testing.T) {
			b := &births{t: t, s: birthServer(t, feed.options)}
			p := attachProgram(t, b.s)
			b.settle()
			b.mark.Presence()
			b.after(p, func() {})
			for _, name := range names {
				grown := b.after(p, func() { allBirths[name](b) })
				if got := outcome(grown); got != table[name][column] {
					t.Errorf("%s: %s, the table says %s", name, got, table[name][column])
				}
				if grown[buried] != 0 {
					t.Errorf("%s: %d dead letters", name, grown[buried])
				}
			}
		})
	}
}

// outcome is how the table writes the events that there were.
func outcome(grown map[string]int) string {
	var parts []string
	for _, direction := range []struct {
		name  string
		count int
	}{{"`in`", grown[chatIn]}, {"`out`", grown[chatOut]}} {
		switch {
		case direction.count == 1:
			parts = append(parts, direction.name)
		case direction.count > 1:
			parts = append(parts, fmt.Sprintf("%d %s", direction.count, direction.name))
		}
	}
	if parts == nil {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}
