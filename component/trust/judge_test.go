package trust

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/component/stanza"
	"eventpusher/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

var when = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// rig is a classifier with the counters that it moves.
type rig struct {
	*Judge
	registry *prometheus.Registry
	decoder  *stanza.Decoder
	env      stanza.Envelope
}

func newRig(hosts []string, feeds ...string) *rig {
	reg := prometheus.NewRegistry()
	var rooms []string
	for _, h := range hosts {
		rooms = append(rooms, "conference."+h, "muc."+h)
	}
	return &rig{
		Judge: New(Options{
			Component: "events.localhost", Forwarders: slices.Concat(hosts, rooms), Hosts: hosts, MUCHosts: rooms, Feeds: (&config.Component{Feeds: feeds}).Authority, Metrics: NewMetrics(reg),
		}),
		registry: reg, decoder: stanza.NewDecoder(stanza.Limits{}),
	}
}

// classify returns "dialect copy host kind from to" of the fact, or "".
func (r *rig) classify(t testing.TB, xml string) string {
	t.Helper()
	if err := r.decoder.Decode([]byte(xml), &r.env); err != nil {
		t.Fatalf("%v in %s", err, xml)
	}
	s := r.Stanza(&r.env, when)
	if s == nil {
		return ""
	}
	if !s.Received.Equal(when) {
		t.Errorf("received %v, want %v", s.Received, when)
	}
	return fmt.Sprintf("%v %s %s: %v %s>%s %s", s.Feed, [...]string{"unknown", "sent", "received"}[s.Copy], s.Host, s.Kind, s.From, s.To, s.Type)
}

// counted lists the counters above zero as dialect/trust=n.
func (r *rig) counted(t testing.TB) []string {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		if f.GetName() != "eventpusher_stanzas_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if n := m.GetCounter().GetValue(); n > 0 {
				all = append(all, fmt.Sprintf("%s/%s=%v", m.GetLabel()[0].GetValue(), m.GetLabel()[1].GetValue(), n))
			}
		}
	}
	slices.Sort(all)
	return all
}

const (
	chat     = `<message xmlns='jabber:client' from='alice@localhost/r1' to='bob@localhost' type='chat'><body>hi</body></message>`
	online   = `<presence xmlns='jabber:client' from='alice@localhost/r1'/>`
	gone     = `<presence xmlns='jabber:client' from='alice@localhost/r1' type='unavailable'/>`
	iqInside = `<iq xmlns='jabber:client' from='alice@localhost/r1' to='bob@localhost' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>`
)

func forward(inner string) string {
	return `<forwarded xmlns='urn:xmpp:forward:0'>` + inner + `</forwarded>`
}

func wrap(from, to, inner string) string {
	return `<message from='` + from + `' to='` + to + `'>` + forward(inner) + `</message>`
}

func perms(from, to, attributes string) string {
	return `<message from='` + from + `' to='` + to + `'` + attributes + `><privilege xmlns='urn:xmpp:privilege:2'><perm access='presence' type='managed_entity'/></privilege></message>`
}

func TestTrust(t *testing.T) {
	for _, tc := range []struct {
		name    string
		stanzas []string // only what the last one gives is looked at
		want    string
		counted string
	}{
		{"service_log", []string{wrap("localhost", "events.localhost", chat)},
			"service_log unknown localhost: message alice@localhost/r1>bob@localhost chat", "service_log/trusted=1"},
		{"service_log, upper case domain", []string{wrap("LocalHost", "Events.Localhost", chat)},
			"service_log unknown localhost: message alice@localhost/r1>bob@localhost chat", "service_log/trusted=1"},
		{"firewall, sent", []string{wrap("localhost", "out@events.localhost", chat)},
			"firewall sent localhost: message alice@localhost/r1>bob@localhost chat", "firewall/trusted=1"},
		{"firewall, received", []string{wrap("localhost", "in@events.localhost", chat)},
			"firewall received localhost: message alice@localhost/r1>bob@localhost chat", "firewall/trusted=1"},
		{"firewall, presence", []string{wrap("localhost", "presence@events.localhost", online)},
			"firewall sent localhost: presence alice@localhost/r1> ", "firewall/trusted=1"},
		{"firewall, join", []string{wrap("localhost", "muc@events.localhost", online)}, "", "firewall/ignored=1"},
		{"conference host forwards", []string{wrap("conference.localhost", "in@events.localhost", chat)},
			"firewall received conference.localhost: message alice@localhost/r1>bob@localhost chat", "firewall/trusted=1"},
		{"received from another server", []string{wrap("localhost", "events.localhost", strings.Replace(chat, "alice@localhost", "zoe@far.example", 1))},
			"service_log received localhost: message zoe@far.example/r1>bob@localhost chat", "service_log/trusted=1"},
		{"room to occupant", []string{wrap("localhost", "events.localhost", strings.Replace(chat, "alice@localhost", "tea@conference.localhost", 1))},
			"service_log received localhost: message tea@conference.localhost/r1>bob@localhost chat", "service_log/trusted=1"},
		{"nested forward to somebody else stays a message", []string{wrap("localhost", "events.localhost",
			`<message xmlns='jabber:client' from='alice@localhost/r1' to='bob@localhost' type='chat'>`+forward(chat)+`</message>`)},
			"service_log unknown localhost: message alice@localhost/r1>bob@localhost chat", "service_log/trusted=1"},

		{"forged by a user", []string{wrap("mallory@localhost/x", "events.localhost", chat)}, "", "direct/untrusted_forward=1"},
		{"forged by a bare user", []string{wrap("mallory@localhost", "out@events.localhost", chat)}, "", "direct/untrusted_forward=1"},
		{"forged by a host with resource", []string{wrap("localhost/x", "events.localhost", chat)}, "", "direct/untrusted_forward=1"},
		{"forged from a foreign server", []string{wrap("evil.example", "events.localhost", chat)}, "", "direct/untrusted_forward=1"},
		{"forged from a sub-domain", []string{wrap("x.localhost", "events.localhost", chat)}, "", "direct/untrusted_forward=1"},
		{"forged by a room", []string{wrap("tea@conference.localhost", "in@events.localhost", chat)}, "", "direct/untrusted_forward=1"},
		{"forged by a user in a presence", []string{`<presence from='mallory@localhost/x' to='events.localhost'>` + forward(chat) + `</presence>`}, "", "direct/untrusted_forward=1"},
		{"forged beside a body", []string{`<message from='mallory@localhost/x' to='events.localhost'><body>look</body>` + forward(chat) + `</message>`}, "", "direct/untrusted_forward=1"},
		{"the log's copy of a forgery", []string{wrap("localhost", "events.localhost",
			`<message xmlns='jabber:client' from='mallory@localhost/x' to='events.localhost'>`+forward(chat)+`</message>`)}, "", "service_log/nested_forward=1"},
		{"the log's copy of a forgery to a node of ours", []string{wrap("localhost", "events.localhost",
			`<message xmlns='jabber:client' from='mallory@localhost/x' to='out@events.localhost'>`+forward(chat)+`</message>`)}, "", "service_log/nested_forward=1"},
		{"wrapper is an error", []string{`<message from='localhost' to='events.localhost' type='error'>` + forward(chat) + `</message>`}, "", "service_log/error=1"},
		{"firewall wrapper is an error", []string{`<message from='localhost' to='out@events.localhost' type='error'>` + forward(chat) + `</message>`}, "", "firewall/error=1"},
		{"wrapped IQ", []string{wrap("localhost", "events.localhost", iqInside)}, "", "service_log/untranslatable=1"},
		{"two wrapped stanzas", []string{wrap("localhost", "events.localhost", chat+chat)}, "", "service_log/untranslatable=1"},
		{"empty wrapper", []string{wrap("localhost", "events.localhost", "")}, "", "service_log/untranslatable=1"},
		{"about strangers", []string{wrap("localhost", "events.localhost", `<message xmlns='jabber:client' from='a@far.example/r' to='b@wide.example'/>`)}, "", "service_log/foreign=1"},
		{"sent copy of another host's user", []string{wrap("localhost", "out@events.localhost", strings.Replace(chat, "alice@localhost", "alice@far.example", 1))}, "", "firewall/foreign=1"},
		{"to another node of ours", []string{wrap("localhost", "other@events.localhost", chat)}, "", "direct/misaddressed=1"},
		{"to a resource of ours", []string{wrap("localhost", "out@events.localhost/x", chat)}, "", "direct/misaddressed=1"},
		{"not to us", []string{wrap("localhost", "elsewhere.localhost", chat)}, "", "direct/misaddressed=1"},

		{"direct message", []string{`<message from='alice@localhost/r1' to='x@events.localhost/y'><body>hi</body></message>`},
			"direct sent localhost: message alice@localhost/r1>x@events.localhost/y ", "direct/trusted=1"},
		{"direct presence", []string{`<presence from='alice@localhost/r1' to='events.localhost'/>`},
			"direct sent localhost: presence alice@localhost/r1>events.localhost ", "direct/trusted=1"},
		{"direct error", []string{`<message from='alice@localhost/r1' to='events.localhost' type='error'/>`}, "", "direct/error=1"},
		{"direct from elsewhere", []string{`<message from='zoe@far.example/r1' to='events.localhost'/>`}, "", "direct/foreign=1"},
		{"direct from a room", []string{`<message from='tea@conference.localhost/zoe' to='events.localhost' type='groupchat'/>`}, "", "direct/foreign=1"},
		{"from the server itself", []string{`<message from='localhost' to='events.localhost'><body>restart at 5</body></message>`}, "", "direct/ignored=1"},

		{"privilege", []string{perms("localhost", "events.localhost", ""), `<presence from='alice@localhost/r1' to='events.localhost'/>`},
			"privilege unknown localhost: presence alice@localhost/r1>events.localhost ", "privilege/trusted=2"},
		{"privilege, snapshot", []string{perms("localhost", "events.localhost", ""), `<presence from='alice@localhost/r1' to='events.localhost'><delay xmlns='urn:xmpp:delay' from='localhost' stamp='2026-11-21T23:41:51Z'/></presence>`},
			"privilege unknown localhost: presence alice@localhost/r1>events.localhost ", "privilege/trusted=2"},
		{"privilege says nothing about messages", []string{perms("localhost", "events.localhost", ""), `<message from='alice@localhost/r1' to='events.localhost'/>`},
			"direct sent localhost: message alice@localhost/r1>events.localhost ", "direct/trusted=1 privilege/trusted=1"},
		{"privilege says nothing about nodes of ours", []string{perms("localhost", "events.localhost", ""), `<presence from='alice@localhost/r1' to='x@events.localhost'/>`},
			"direct sent localhost: presence alice@localhost/r1>x@events.localhost ", "direct/trusted=1 privilege/trusted=1"},
		{"privilege says nothing about subscriptions", []string{perms("localhost", "events.localhost", ""), `<presence from='alice@localhost' to='events.localhost' type='subscribe'/>`},
			"direct sent localhost: presence alice@localhost>events.localhost subscribe", "direct/trusted=1 privilege/trusted=1"},
		{"privilege taken back", []string{perms("localhost", "events.localhost", ""),
			`<message from='localhost' to='events.localhost'><privilege xmlns='urn:xmpp:privilege:2'><perm access='presence' type='none'/></privilege></message>`,
			`<presence from='alice@localhost/r1' to='events.localhost'/>`},
			"direct sent localhost: presence alice@localhost/r1>events.localhost ", "direct/trusted=1 privilege/trusted=2"},
		{"privileges forged by a user", []string{perms("mallory@localhost/x", "events.localhost", ""), `<presence from='alice@localhost/r1' to='events.localhost'/>`},
			"direct sent localhost: presence alice@localhost/r1>events.localhost ", "direct/trusted=1 privilege/untrusted_privilege=1"},
		{"privileges forged from elsewhere", []string{perms("evil.example", "events.localhost", ""), `<presence from='ceo@evil.example/r1' to='events.localhost'/>`},
			"", "direct/foreign=1 privilege/untrusted_privilege=1"},
		{"privileges of a conference host", []string{perms("conference.localhost", "events.localhost", "")}, "", "privilege/untrusted_privilege=1"},
		{"privileges that came back", []string{perms("localhost", "events.localhost", " type='error'"), `<presence from='alice@localhost/r1' to='events.localhost'/>`},
			"direct sent localhost: presence alice@localhost/r1>events.localhost ", "direct/trusted=1 privilege/error=1"},
		{"privileges to a node of ours", []string{perms("localhost", "x@events.localhost", "")}, "", "privilege/untrusted_privilege=1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig([]string{"localhost"})
			var got string
			for _, s := range tc.stanzas {
				got = r.classify(t, s)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tc.counted, strings.Join(r.counted(t), " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGrantsAreForgottenOnReconnect(t *testing.T) {
	r := newRig([]string{"localhost"})
	r.classify(t, perms("localhost", "events.localhost", ""))
	r.Reconnected(when)
	got := r.classify(t, `<presence from='alice@localhost/r1' to='events.localhost'/>`)
	if want := "direct sent localhost: presence alice@localhost/r1>events.localhost "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConfiguredForwarders(t *testing.T) {
	f := New(Options{Component: "events.localhost", Forwarders: []string{"relay.example"}, Hosts: []string{"localhost"}})
	r := &rig{Judge: f, decoder: stanza.NewDecoder(stanza.Limits{})}
	if got := r.classify(t, wrap("localhost", "events.localhost", chat)); got != "" {
		t.Errorf("a host that is no longer a forwarder was believed: %s", got)
	}
	want := "service_log unknown relay.example: message alice@localhost/r1>bob@localhost chat"
	if got := r.classify(t, wrap("relay.example", "events.localhost", chat)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	status := r.Status()
	if len(status) != 1 || status[0].Authority[Messages] != "service_log" {
		t.Errorf("the relay's stanza is about localhost, but the status is %v", status)
	}
}

// Lists that are empty trust nobody, whether they are nil or not.
func TestNobodyIsTrustedByDefault(t *testing.T) {
	toRoom := strings.Replace(chat, "alice@localhost", "tea@conference.localhost", 1)
	for name, empty := range map[string][]string{"nil": nil, "not nil": {}} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			r := &rig{
				Judge:    New(Options{Component: "events.localhost", Forwarders: empty, Hosts: []string{"localhost"}, MUCHosts: empty, Metrics: NewMetrics(reg)}),
				registry: reg, decoder: stanza.NewDecoder(stanza.Limits{}),
			}
			for _, xml := range []string{
				wrap("localhost", "events.localhost", chat),
				wrap("conference.localhost", "in@events.localhost", chat),
				wrap("muc.localhost", "in@events.localhost", toRoom),
			} {
				if got := r.classify(t, xml); got != "" {
					t.Errorf("%s gives %s", xml, got)
				}
			}
			// Without the forwarder, the host grants nothing either.
			r.classify(t, perms("localhost", "events.localhost", ""))
			if got := r.classify(t, `<presence from='alice@localhost/r1' to='events.localhost'/>`); !strings.HasPrefix(got, "direct ") {
				t.Errorf("presence gives %q", got)
			}
			want := []string{"direct/trusted=1", "direct/untrusted_forward=3", "privilege/untrusted_privilege=1"}
			if diff := cmp.Diff(want, r.counted(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A room's stanza is about strangers where muc_hosts is empty.
func TestNoConferenceHostsByDefault(t *testing.T) {
	f := New(Options{Component: "events.localhost", Forwarders: []string{"localhost"}, Hosts: []string{"localhost"}, MUCHosts: []string{}})
	r := &rig{Judge: f, decoder: stanza.NewDecoder(stanza.Limits{})}
	const fromRoom = `<message xmlns='jabber:client' from='tea@conference.localhost/al' to='zoe@far.example/r' type='groupchat'><body>hi</body></message>`
	if got := r.classify(t, wrap("localhost", "events.localhost", fromRoom)); got != "" {
		t.Errorf("got %s", got)
	}
}

// TestAuthority tells dialects apart that report the same fact.
func TestAuthority(t *testing.T) {
	const (
		log      = "log"
		firewall = "firewall"
		granted  = "privilege"
		direct   = "direct"
	)
	message := map[string]string{
		log: wrap("localhost", "events.localhost", chat), firewall: wrap("localhost", "out@events.localhost", chat),
		direct: `<message from='alice@localhost/r1' to='x@events.localhost'/>`,
	}
	presence := map[string]string{
		log: wrap("localhost", "events.localhost", online), firewall: wrap("localhost", "presence@events.localhost", online),
		granted: `<presence from='alice@localhost/r1' to='events.localhost'/>`, direct: `<presence from='alice@localhost/r1' to='x@events.localhost'/>`,
	}
	offline := map[string]string{
		log: wrap("localhost", "events.localhost", gone), granted: `<presence type='unavailable' from='alice@localhost/r1' to='events.localhost'/>`,
		direct: `<presence type='unavailable' from='alice@localhost/r1' to='x@events.localhost'/>`,
	}
	for _, tc := range []struct {
		name  string
		feeds []string
		class map[string]string
		come  string // dialects in the order in which they report
		pass  string // which of them are passed on
	}{
		{"one dialect", nil, message, "direct direct", "direct direct"},
		{"a better one replaces it", nil, message, "direct firewall direct log firewall log", "direct firewall log log"},
		{"a worse one never counts", nil, message, "log direct firewall log", "log log"},
		{"presence", nil, presence, "privilege direct firewall privilege", "privilege firewall"},
		{"offline", nil, offline, "direct privilege log direct privilege log", "direct privilege log log"},
		{"configured", []string{"direct"}, message, "log direct firewall", "direct"},
		{"configured, best first whatever the order", []string{"direct", "firewall"}, message, "log direct firewall", "firewall"},
		{"privilege gives no messages", []string{"privilege", "direct"}, message, "log direct", "direct"},
		{"privilege gives presence", []string{"privilege", "direct"}, presence, "direct privilege log", "privilege"},
		{"listed, but without messages", []string{"privilege"}, message, "log direct", ""},
		{"a class of its own", []string{"service_log", "direct:offline"}, offline, "log direct privilege log", "direct"},
		{"and all the others", []string{"service_log", "direct:offline"}, presence, "log direct privilege", "log"},
		{"a class of its own, the rest as heard", []string{"direct:offline"}, message, "direct firewall direct", "direct firewall"},
		{"a class of its own that it cannot report", []string{"privilege:message"}, message, "log direct", ""},
		{"several for a class, the best", []string{"direct:offline", "privilege:offline"}, offline, "direct privilege direct", "privilege"},
		{"unknown names list nothing", []string{"gossip"}, message, "log direct", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig([]string{"localhost"}, tc.feeds...)
			r.classify(t, perms("localhost", "events.localhost", ""))
			var pass []string
			for name := range strings.FieldsSeq(tc.come) {
				if r.classify(t, tc.class[name]) != "" {
					pass = append(pass, name)
				}
			}
			if diff := cmp.Diff(tc.pass, strings.Join(pass, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAuthorityIsPerHostAndClassAndOutlivesTheConnection(t *testing.T) {
	r := newRig([]string{"localhost", "second.example"})
	r.classify(t, wrap("localhost", "events.localhost", chat))
	r.Reconnected(when)
	for _, tc := range []struct {
		xml  string
		pass bool
	}{
		{`<message from='alice@localhost/r1' to='events.localhost'/>`, false},
		{`<presence from='alice@localhost/r1' to='events.localhost'/>`, true},
		{`<message from='eve@second.example/r1' to='events.localhost'/>`, true},
	} {
		if got := r.classify(t, tc.xml); (got != "") != tc.pass {
			t.Errorf("%s gives %q", tc.xml, got)
		}
	}
	want := []HostStatus{
		{Host: "localhost", Authority: map[Class]string{Messages: "service_log", Presence: "direct", Offline: "direct"}, Since: map[Class]time.Time{Messages: when, Presence: when, Offline: when}, Heard: []string{"service_log", "direct"}},
		{Host: "second.example", Authority: map[Class]string{Messages: "direct"}, Since: map[Class]time.Time{Messages: when}, Heard: []string{"direct"}},
	}
	if diff := cmp.Diff(want, r.Status()); diff != "" {
		t.Error(diff)
	}
}

// TestAuthorityCoversBothStatuses: a feed that has reported somebody online is
// the authority for offline too, although it has reported nobody offline yet.
func TestAuthorityCoversBothStatuses(t *testing.T) {
	r := newRig([]string{"localhost"})
	if r.classify(t, wrap("localhost", "presence@events.localhost", `<presence xmlns='jabber:client' from='alice@localhost/r1'/>`)) == "" {
		t.Fatal("the feed's presence is no fact")
	}
	if got := r.classify(t, `<presence from='mallory@localhost/r1' to='events.localhost' type='unavailable'/>`); got != "" {
		t.Errorf("a directed unavailable gives %q", got)
	}
}

// TestCaptures classifies what real servers sent; the golden files were read
// through by hand against what the users did.
func TestCaptures(t *testing.T) {
	for _, name := range []string{
		"ejabberd/a-service_log", "ejabberd/b-privilege_managed_entity.1", "ejabberd/d-direct.1", "ejabberd/c-delegation.1",
		"prosody/a_firewall_fw_dir", "prosody/a_firewall_fw", "prosody/b_privilege", "prosody/d_direct.1",
	} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("..", "stanza", "testdata", "captures", name+".xml"))
			if err != nil {
				t.Fatal(err)
			}
			r := newRig([]string{"localhost"})
			var out strings.Builder
			framer := stanza.NewFramer(bytes.NewReader(data), stanza.Limits{})
			for {
				frame, err := framer.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if frame.Kind == stanza.MessageFrame || frame.Kind == stanza.PresenceFrame {
					if fact := r.classify(t, string(frame.Bytes)); fact != "" {
						fmt.Fprintln(&out, fact)
					}
				}
			}
			for _, line := range r.counted(t) {
				fmt.Fprintln(&out, "#", line)
			}
			golden := filepath.Join("testdata", strings.ReplaceAll(name, "/", "-")+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzStanza holds every fact against the rules of trust, whatever was sent
// before it on the connection.
func FuzzStanza(f *testing.F) {
	f.Add(wrap("localhost", "events.localhost", chat), perms("localhost", "events.localhost", ""))
	f.Add(wrap("mallory@localhost/x", "out@events.localhost", chat), wrap("localhost", "presence@events.localhost", online))
	f.Add(perms("mallory@localhost/x", "events.localhost", ""), `<presence from='alice@localhost/r1' to='events.localhost'/>`)
	f.Add(`<message from='localhost' to='events.localhost' type='error'>`+forward(chat)+`</message>`, `<presence from='LOCALHOST/x' to='events.localhost'>`+forward(gone)+`</presence>`)
	f.Fuzz(func(t *testing.T, first, second string) {
		r := newRig([]string{"localhost"})
		for _, xml := range []string{first, second} {
			if r.decoder.Decode([]byte(xml), &r.env) != nil {
				continue
			}
			s := r.Stanza(&r.env, when)
			if s == nil {
				continue
			}
			outer := &r.env.Outer
			forwarder := outer.From == "localhost" || outer.From == "conference.localhost" || outer.From == "muc.localhost"
			switch s.Feed {
			case ServiceLog, Firewall:
				if s.Raw != r.env.Inner.Raw || !forwarder || outer.Type == "error" || outer.Kind != stanza.Message {
					t.Errorf("%s was opened", xml)
				}
				if d := s.From.Domain(); s.Copy == SentCopy && d != "localhost" && d != "conference.localhost" && d != "muc.localhost" {
					t.Errorf("%s was believed to be sent from %s", xml, d)
				}
			case Privilege, Direct:
				if s.Raw != outer.Raw || r.env.Forward != stanza.NotForwarded || s.From.Domain() != "localhost" || s.From.Local() == "" || s.Type == "error" {
					t.Errorf("%s became a fact", xml)
				}
			default:
				t.Errorf("%s has the feed %v", xml, s.Feed)
			}
			if outer.To.Domain() != "events.localhost" || s.Host == "" || s.Received.IsZero() {
				t.Errorf("%s gives %+v", xml, s)
			}
		}
	})
}
