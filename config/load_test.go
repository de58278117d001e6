package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/jid"
)

// minimal has what has no default, and a backend.
const minimal = `
[component]
name = "events.example.org"
secret = "hunter2-component"

[general]
hosts = ["example.org"]

[modules.mod_event_pusher.rabbit.presence_exchange]
durable = true

[outgoing_pools.rabbit.event_pusher]
`

// parsed is the configuration of a file that has to be accepted.
func parsed(t *testing.T, file string, env ...string) *Config {
	t.Helper()
	c, problems := Parse([]byte(file), env, "testdata")
	if c == nil {
		t.Fatalf("refused:\n%s", lines(problems))
	}
	return c
}

func TestMinimal(t *testing.T) {
	c, problems := Parse([]byte(minimal), nil, "")
	if len(problems) > 0 {
		t.Fatalf("problems:\n%s", lines(problems))
	}
	want := Default()
	want.Component.Name, want.Component.Secret = "events.example.org", "hunter2-component"
	want.Component.MUCHosts = []string{"conference.example.org", "muc.example.org"}
	want.Component.Forwarders = []string{"example.org", "conference.example.org", "muc.example.org"}
	want.General.Hosts = []string{"example.org"}
	want.Pusher.Rabbit = &Rabbit{Presence: &Exchange{Name: "presence", Type: "topic", Durable: true, Declare: "active"}, Unroutable: "drop", LongRoutingKey: "dead_letter", Choice: Choice{Format: FormatMongooseIM, ContentType: "application/json", TooLarge: "dead_letter"}}
	want.Pools.Rabbit = &RabbitPool{
		PoolOptions: PoolOptions{Scope: "global", Workers: 10, Strategy: "best_worker", CallTimeout: 5 * time.Second},
		Host:        "localhost", Port: 5672, Username: "guest", Password: "guest", VirtualHost: "/",
		ConfirmsEnabled: true, ReconnectDelay: 2 * time.Second, Persistent: true, Mandatory: true, Window: 256, Settle: time.Minute,
		SASL: "plain", Heartbeat: 10 * time.Second, ConnectionName: "eventpusher",
	}
	if diff := cmp.Diff(&want, c); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// The defaults that the brief descriptions of the fields promise.
func TestDefault(t *testing.T) {
	want := Config{
		Component: Component{
			Address: "localhost:5347", Feeds: []string{}, FeedToken: "optional", MaxStanzaSize: 4 << 20, MaxDepth: 1000,
			HandshakeTimeout: 10 * time.Second, PingInterval: 30 * time.Second, PingTimeout: 30 * time.Second,
			ReconnectMin: 500 * time.Millisecond, ReconnectMax: 5 * time.Second,
		},
		Pusher:    Modules{Follow: "6.8"},
		AppServer: AppServer{MaxDevices: 16, Burst: 3, Interval: 20 * time.Second},
		Outbox: Outbox{
			Engine: "embedded", Path: "outbox", MaxSize: 10 << 30, MaxAge: 72 * time.Hour, ShutdownTimeout: 10 * time.Second, OnDamage: "stop",
			NATS: NATS{NATSServers: NATSServers{URL: "nats://localhost:4222"}, Stream: "EVENTPUSHER", Replicas: 1, Partitions: 16, Takeover: 15 * time.Second},
		},
		Log: Log{Level: slog.LevelInfo, Format: "text"},
	}
	if diff := cmp.Diff(want, Default()); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestUnreadableFile(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "none.toml"), t.TempDir()} {
		c, problems := Load(name, nil)
		if c != nil || len(problems) != 1 || problems[0].Severity != Error || problems[0].Path != name || problems[0].Remedy == "" {
			t.Errorf("Load(%q) = %v, %v", name, c, problems)
		}
	}
}

// A byte order mark and the line ends of Windows are no syntax errors.
func TestForeignEditors(t *testing.T) {
	c := parsed(t, "\xef\xbb\xbf"+strings.ReplaceAll(minimal, "\n", "\r\n"))
	if c.Component.Secret.Reveal() != "hunter2-component" {
		t.Errorf("secret %q", c.Component.Secret.Reveal())
	}
}

// A secret that lacks its quotes is a syntax error, which must not show it.
func TestSyntaxErrorsShowNoValue(t *testing.T) {
	for _, value := range []string{`Zq7zK`, `7e99999`, `77777777777777777777`, `"Zq7\zK"`, `'Zq7`, `"Zq7"zK`, `0xZq7`, `é7Zq7`, `trueZq7`, `7-7`, `2024-77-77`} {
		c, problems := Parse([]byte("[component]\nname = 'events.example.org'\nsecret = "+value+"\n"), nil, "")
		if c != nil || len(problems) != 1 {
			t.Fatalf("secret = %s: %v\n%s", value, c, lines(problems))
		}
		text := problems[0].String()
		if !strings.Contains(text, "line 3, column ") || problems[0].Remedy == "" {
			t.Errorf("secret = %s: no position or remedy: %s", value, text)
		}
		_, message, _ := strings.Cut(text, "not valid TOML: ")
		if message == "" || strings.ContainsAny(message, "ZK7é+") {
			t.Errorf("secret = %s is shown in part: %s", value, text)
		}
	}
}

// MongooseIM tells tags apart by case; viper alone would not.
func TestTagsKeepCase(t *testing.T) {
	c := parsed(t, minimal+`
[outgoing_pools.http]
Hooks.connection.host = "http://upper"
hooks.connection.host = "http://lower"
"HÖÖKS::x.y^".connection.host = "http://odd"
"höÖKS::x.y^".connection.host = "http://odd2"
[[modules.mod_event_pusher.http.handlers]]
pool_name = "Hooks"
[[filter]]
name = "meta"
[filter.metadata]
SentAt = "event.timestamp"
sentAt = "event.time"
"x.y" = "event.id"
`)
	hosts := make(map[string]string)
	for tag, pool := range c.Pools.HTTP {
		hosts[tag] = pool.Host
	}
	want := map[string]string{"Hooks": "http://upper", "hooks": "http://lower", "HÖÖKS::x.y^": "http://odd", "höÖKS::x.y^": "http://odd2"}
	if diff := cmp.Diff(want, hosts); diff != "" {
		t.Errorf("hosts by tag (-want +got):\n%s", diff)
	}
	wantFilters := []Filter{{
		Name: "meta", Type: "expression", Priority: 10, OnError: "dead_letter",
		Metadata: map[string]string{"SentAt": "event.timestamp", "sentAt": "event.time", "x.y": "event.id"},
	}}
	if diff := cmp.Diff(wantFilters, c.Filters); diff != "" {
		t.Errorf("filters (-want +got):\n%s", diff)
	}
}

// Arrays keep their order beyond ten, where names of positions sort differently.
func TestOrderOfFilters(t *testing.T) {
	file := minimal
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprintf("filter %d", i))
		file += fmt.Sprintf("[[filter]]\nname = %q\nkeep = \"true\"\n", want[i])
	}
	var got []string
	for _, f := range parsed(t, file).Filters {
		got = append(got, f.Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// Lists that are given empty are not lists that are not given.
func TestEmptyLists(t *testing.T) {
	c := parsed(t, strings.Replace(minimal, "[component]", "[component]\nmuc_hosts = []\nforwarders = []", 1))
	if len(c.Component.MUCHosts) != 0 || len(c.Component.Forwarders) != 0 {
		t.Errorf("muc_hosts %q, forwarders %q, want none", c.Component.MUCHosts, c.Component.Forwarders)
	}
	c = parsed(t, strings.Replace(minimal, "events.example.org", "muc.example.org", 1))
	if diff := cmp.Diff([]string{"conference.example.org"}, c.Component.MUCHosts); diff != "" {
		t.Errorf("muc_hosts (-want +got):\n%s", diff)
	}
	c = parsed(t, strings.Replace(minimal, "[component]", "[component]\nmuc_hosts = ['Rooms.Example.ORG.']", 1))
	if diff := cmp.Diff([]string{"example.org", "rooms.example.org"}, c.Component.Forwarders); diff != "" {
		t.Errorf("forwarders (-want +got):\n%s", diff)
	}
}

// The same input gives the same problems in the same order, errors first.
func TestOrderOfProblems(t *testing.T) {
	data, err := os.ReadFile("testdata/broken/exchanges.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, first := Parse(data, nil, "")
	if !slices.IsSortedFunc(first, func(a, b Problem) int { return int(b.Severity) - int(a.Severity) }) {
		t.Errorf("errors are not first:\n%s", lines(first))
	}
	for range 20 {
		if _, again := Parse(data, nil, ""); !slices.Equal(first, again) {
			t.Fatalf("first:\n%sthen:\n%s", lines(first), lines(again))
		}
	}
}

func TestNetworkAndLoopback(t *testing.T) {
	for _, tt := range []struct {
		name, component, admin string
		warned, refused        bool
	}{
		{"default", ``, ``, false, false},
		{"loopback 4", `address = "127.0.0.2:5347"`, `listen = "127.0.0.1:0"`, false, false},
		{"loopback 6", `address = "[::1]:5347"`, `listen = "[::1]:9090"`, false, false},
		{"loopback name", `address = "LOCALHOST:5347"`, `listen = "localhost:9090"`, false, false},
		{"network", `address = "xmpp.example.org:5347"`, ``, true, false},
		{"network address", `address = "192.0.2.1:5347"`, ``, true, false},
		{"network with tls", "address = \"xmpp.example.org:5347\"\ntls.verify_mode = \"peer\"", ``, false, false},
		{"all interfaces", ``, `listen = ":9090"`, false, true},
		{"all interfaces by address", ``, `listen = "0.0.0.0:9090"`, false, true},
		{"all interfaces with token", ``, "listen = \":9090\"\ntoken = \"t\"", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := strings.Replace(minimal, "[component]", "[component]\n"+tt.component, 1) + "\n[admin]\n" + tt.admin
			c, problems := Parse([]byte(file), nil, "")
			if warned := strings.Contains(lines(problems), "warning: component.address"); warned != tt.warned {
				t.Errorf("warned: %v, want %v:\n%s", warned, tt.warned, lines(problems))
			}
			if refused := c == nil && strings.Contains(lines(problems), "error: admin.token"); refused != tt.refused {
				t.Errorf("refused: %v, want %v:\n%s", refused, tt.refused, lines(problems))
			}
		})
	}
}

// No way of printing shows a secret.
func TestSecretsStayHidden(t *testing.T) {
	file := strings.Replace(minimal, "[outgoing_pools.rabbit.event_pusher]", "[outgoing_pools.rabbit.event_pusher]\nconnection.password = 'hunter2-rabbit'", 1) + `
[component.tls]
password = "hunter2-key"
[admin]
token = "hunter2-admin"
[modules.mod_event_pusher.sns]
pm_messages_topic = "pm"
sns_host = "localhost"
region = "us-east-1"
access_key_id = "id"
secret_access_key = "hunter2-sns"
account_id = "1"
[outgoing_pools.rdbms.default.connection]
driver = "pgsql"
host = "localhost"
database = "d"
username = "u"
password = "hunter2-rdbms"
[[modules.mod_event_pusher.http.handlers]]
path = "/hunter2-path?token=hunter2"
[[modules.mod_event_pusher.http.handlers]]
path = "hunter2-other"
[outgoing_pools.http.http_pool.connection]
host = "http://localhost"
path_prefix = "/joined"
[modules.mod_event_pusher.push]
[[push.app]]
name = "chat"
apns = { key = "hunter2-apns", key_id = "id", team_id = "team", topics = ["t"] }
fcm = { credentials = "hunter2-fcm" }
webpush = { vapid_key = "hunter2-vapid", subject = "mailto:x@example.org" }
`
	c, problems := Parse([]byte(file), []string{"EVENTPUSHER_COMPONENT_SECRETS=hunter2-env"}, "")
	if c == nil {
		t.Fatalf("refused:\n%s", lines(problems))
	}
	app := c.AppServer.Apps[0]
	secrets := []Secret{app.APNs.Key, app.FCM.Credentials, app.WebPush.VAPIDKey, c.Component.Secret, c.Component.TLS.KeyPassword, c.Admin.Token, c.Pusher.SNS.SecretAccessKey, c.Pools.Rabbit.Password, c.Pools.RDBMS.Password, c.Pusher.HTTP.Handlers[0].Path}
	var out strings.Builder
	values := []any{c, *c, *c.Component.TLS, *c.Pusher.SNS, *c.Pusher.HTTP, c.Pusher.HTTP.Handlers, *c.Pools.Rabbit, *c.Pools.RDBMS, problems, c.AppServer, app, *app.APNs, *app.FCM, *app.WebPush}
	for _, s := range secrets {
		if !strings.HasPrefix(s.Reveal(), "hunter2-") {
			t.Errorf("%q is not the secret of the file", s.Reveal())
		}
		values = append(values, s, &s)
	}
	logs := []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(data)
		for _, log := range logs {
			log.Info("configuration", "value", v)
		}
	}
	hexed := fmt.Sprintf("%x", "hunter2")
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), hexed) {
		t.Error("a secret is shown")
	}
	if !strings.Contains(out.String(), "***") {
		t.Error("nothing was printed")
	}
}

// Wildcards stand for hosts, and for the rooms of each; the component and domains that are named beside
// them are what they are.
func TestWildcards(t *testing.T) {
	c, problems := Parse([]byte("[component]\nname = 'events.example.org'\nsecret = 'x'\n[general]\nhosts = ['Example.org', '*.Bu\u0308cher.example', '*.example.org', 'a.example.org']\n"), nil, "")
	if c == nil || !strings.Contains(lines(problems), "note: general.hosts: every domain that a wildcard stands for is trusted") {
		t.Fatal(problems)
	}
	if diff := cmp.Diff([]string{"example.org", "*.bücher.example", "*.example.org", "a.example.org"}, c.General.Hosts); diff != "" {
		t.Error(diff)
	}
	served := jid.NewDomains(c.Served()...)
	for domain, want := range map[jid.JID]bool{
		"example.org": true, "b.example.org": true, "x.bücher.example": true, "conference.example.org": false, "muc.example.org": false, "events.example.org": false,
		"conference.b.example.org": false, "conference.a.example.org": false,
	} {
		if served.Has(domain) != want {
			t.Errorf("%s is served: %v", domain, !want)
		}
	}
	if rooms := jid.NewDomains(c.Component.MUCHosts...); !rooms.Has("conference.b.example.org") || !rooms.Has("muc.a.example.org") {
		t.Errorf("rooms %q", c.Component.MUCHosts)
	}
}
