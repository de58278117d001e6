package catalog_test

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/backends/catalog"
	"eventpusher/config"
	"eventpusher/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// full is a configuration of every backend, all of them at address.
func full(address string, handlers ...config.HTTPHandler) *config.Config {
	host, _, _ := net.SplitHostPort(address)
	return &config.Config{
		General: config.General{Hosts: []string{"localhost"}},
		Pusher: config.Modules{
			SNS:    &config.SNS{PMMessagesTopic: "pm", Host: "http://" + address, Region: "eu-west-1", AccessKeyID: "AKIA", SecretAccessKey: "secret", AccountID: "1"},
			HTTP:   &config.HTTP{Handlers: handlers},
			Rabbit: &config.Rabbit{Chat: &config.Exchange{Name: "chat_msg", Type: "topic"}},
		},
		Pools: config.Pools{
			HTTP: map[string]config.HTTPPool{
				"http_pool": {Host: "http://" + address, PathPrefix: "/"},
				"Other":     {Host: "http://" + address, PathPrefix: "/"},
			},
			Rabbit: &config.RabbitPool{Host: host, Port: 1},
		},
	}
}

func TestBuildNamesEachBackend(t *testing.T) {
	for _, tc := range []struct {
		name     string
		handlers []config.HTTPHandler
		want     []string
	}{
		{"no handler", nil, []string{"sns", "rabbit"}},
		{"one handler", []config.HTTPHandler{{PoolName: "http_pool", Path: "/in"}}, []string{"sns", "http:http_pool", "rabbit"}},
		{"a name of its own", []config.HTTPHandler{{Name: "crm", PoolName: "http_pool"}}, []string{"sns", "crm", "rabbit"}},
		{"names of their own do not count", []config.HTTPHandler{{PoolName: "http_pool"}, {Name: "crm", PoolName: "http_pool"}, {PoolName: "http_pool"}},
			[]string{"sns", "http:http_pool", "crm", "http:http_pool/2", "rabbit"}},
		{"several", []config.HTTPHandler{
			{PoolName: "http_pool", Path: "/in"}, {PoolName: "http_pool"}, {PoolName: "Other", Path: "in"}, {PoolName: "Other", Path: "in?token=a"}, {PoolName: "Other", Path: "in?token=b"},
		}, []string{"sns", "http:http_pool", "http:http_pool/2", "http:Other", "http:Other/2", "http:Other/3", "rabbit"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			built, err := catalog.Build(full("localhost:1", tc.handlers...), discard, nil)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, b := range built {
				names = append(names, b.Name())
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFormerNames(t *testing.T) {
	got := catalog.FormerNames(full("localhost:1",
		config.HTTPHandler{PoolName: "http_pool", Path: "/in"}, config.HTTPHandler{Name: "crm", PoolName: "http_pool", Path: "in"}, config.HTTPHandler{PoolName: "http_pool"}))
	want := []catalog.FormerName{
		{Name: "http:http_pool", Former: "http:http_pool/58296753", Hashed: true},
		{Name: "http:http_pool/2", Former: "http:http_pool"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := catalog.FormerNames(&config.Config{}); len(got) != 0 {
		t.Errorf("without handlers: %v", got)
	}
}

// TestDestinationsOfBrokers: any number of each type, under the names of the operator, and each
// with one exchange or topic for all that it gets.
func TestDestinationsOfBrokers(t *testing.T) {
	bus := config.Destination{Type: "rabbit", Choice: config.Choice{Events: []string{"all"}, Format: "json"}, Exchange: config.Exchange{Name: "events"}}
	topic := config.Destination{Type: "sns", Choice: bus.Choice, SNS: config.SNS{Topic: "arn:aws:sns:eu-west-1:1:t", Region: "eu-west-1", AccessKeyID: "AKIA", SecretAccessKey: "s"}}
	cfg := &config.Config{Destinations: []config.Destination{bus, bus, topic, topic}}
	names := []string{"here", "there", "aws", "aws2"}
	for i := range cfg.Destinations {
		cfg.Destinations[i].Name = names[i]
	}
	built, err := catalog.Build(cfg, discard, nil)
	if err != nil || len(built) != len(names) {
		t.Fatalf("%v, %v", built, err)
	}
	all, err := event.ParseSelection([]string{"all"})
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range built {
		if b.Name() != names[i] {
			t.Errorf("%s, want %s", b.Name(), names[i])
		}
		for _, e := range all.Samples() {
			if !b.Wants(&e) {
				t.Errorf("%s does not want %s", b.Name(), e.Sort())
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	// What config complains of is not reported again.
	cfg.Destinations = []config.Destination{{Name: "a", Type: "rabbit"}, {Name: "b", Type: "sns"}}
	earlier := []config.Problem{
		{Severity: config.Error, Path: "destination[1].exchange.name"}, {Severity: config.Error, Path: "destination[2].topic"}, {Severity: config.Warning, Path: "destination[3].url"},
	}
	if got := catalog.Check(cfg, earlier, nil, nil); len(got) != 0 {
		t.Errorf("%v", got)
	}
	// A warning hides nothing.
	cfg.Destinations = append(cfg.Destinations, config.Destination{Name: "c", Type: "http", Choice: config.Choice{Format: "yaml"}})
	if got := catalog.Check(cfg, earlier, nil, nil); len(got) != 1 || got[0].Path != "destination[3]" {
		t.Errorf("%v", got)
	}
}

// A service that is down at start, or does not answer, delays nothing.
func TestBuildDialsNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialled := make(chan bool)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			conn.Close()
		}
		dialled <- err == nil
	}()
	cfg := full(l.Addr().String(), config.HTTPHandler{PoolName: "http_pool"})
	cfg.Pools.Rabbit.Port = l.Addr().(*net.TCPAddr).Port
	built, err := catalog.Build(cfg, discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range built {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	l.Close()
	if <-dialled {
		t.Error("Build has dialled")
	}
}

func TestBuildWithoutBackends(t *testing.T) {
	for name, cfg := range map[string]*config.Config{
		"nothing":          {},
		"a rabbit section": {Pusher: config.Modules{Rabbit: &config.Rabbit{}}},
		"no handlers":      {Pusher: config.Modules{HTTP: &config.HTTP{}}},
	} {
		if built, err := catalog.Build(cfg, discard, nil); err != nil || len(built) != 0 {
			t.Errorf("%s: %v, %v", name, built, err)
		}
	}
}

func TestBuildReportsAllErrors(t *testing.T) {
	cfg := full("localhost:1", config.HTTPHandler{PoolName: "missing", Path: "hunter2"}, config.HTTPHandler{PoolName: "http_pool"})
	cfg.Pusher.SNS.Host = "ftp://x"
	cfg.Pools.Rabbit = nil
	cfg.Pools.HTTP["http_pool"] = config.HTTPPool{Host: "https://localhost", TLS: &config.TLS{CACertFile: "/nonexistent"}}
	built, err := catalog.Build(cfg, discard, nil)
	if err == nil || built != nil {
		t.Fatalf("%v, %v", built, err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the path is shown: %v", err)
	}
	for _, detail := range []string{"sns_host", "outgoing_pools.http.missing", "cacertfile", "outgoing_pools.rabbit.event_pusher"} {
		if !strings.Contains(err.Error(), detail) {
			t.Errorf("no word about %s in: %v", detail, err)
		}
	}
}

// What Build refuses, and names that the pusher refuses, each at its section.
func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*config.Config)
		want   []string // paths
	}{
		{"fine", func(*config.Config) {}, nil},
		{"one name twice", func(c *config.Config) {
			c.Pusher.HTTP.Handlers = []config.HTTPHandler{{Name: "http:Other", PoolName: "http_pool"}, {PoolName: "Other"}, {Name: "sns", PoolName: "Other", Path: "x"}}
		}, []string{"modules.mod_event_pusher.http.handlers[2]", "modules.mod_event_pusher.http.handlers[3]"}},
		{"everything", func(c *config.Config) {
			c.Pusher.SNS.Host = "ftp://x"
			c.Pusher.HTTP.Handlers = []config.HTTPHandler{{PoolName: "missing"}, {PoolName: "http_pool", Path: "%zz"}}
			c.Pools.Rabbit.TLS = &config.TLS{CACertFile: "/nonexistent"}
		}, []string{"modules.mod_event_pusher.sns", "modules.mod_event_pusher.http.handlers[2]", "modules.mod_event_pusher.rabbit"}},
		{"applications", func(c *config.Config) {
			c.Pusher.Push = &config.Push{}
			c.AppServer.Apps = []config.PushApp{
				{Name: "a", APNs: &config.PushAPNs{Key: "x", KeyID: "ABC123DEFG", TeamID: "DEF123GHIJ", Topics: []string{"t"}}, FCM: &config.PushFCM{Credentials: "x"}},
				{Name: "b", WebPush: &config.PushWebPush{VAPIDKey: "x", Subject: "mailto:x@example.org"}},
			}
		}, []string{"push.app[1].apns.key", "push.app[1].fcm.credentials", "push.app[2].webpush.vapid_key"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := full("localhost:1")
			tc.change(cfg)
			var paths []string
			for _, p := range catalog.Check(cfg, nil, nil, nil) {
				if p.Severity != config.Error || p.Text == "" {
					t.Errorf("%+v", p)
				}
				paths = append(paths, p.Path)
			}
			if diff := cmp.Diff(tc.want, paths); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCheckOfChoices: what a destination cannot get, or its form cannot write, is said.
func TestCheckOfChoices(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*config.Config)
		never  []string // sorts of which no condition ever holds
		want   string   // path: part of the text
	}{
		{"everything", func(c *config.Config) {
			c.Destinations = []config.Destination{{Name: "crm", Type: "http", URL: "http://localhost", Choice: config.Choice{Events: []string{"all"}, Format: "json"}}}
		}, nil, ""},
		{"nats, whose default is json", func(c *config.Config) {
			c.Destinations = []config.Destination{{Name: "queue", Type: "nats", NATS: config.NATSDestination{Subject: "events.{{.sort}}", NATSServers: config.NATSServers{URL: "nats://localhost"}}, Choice: config.Choice{Events: []string{"all"}}}}
		}, nil, ""},
		{"kafka, whose default is json", func(c *config.Config) {
			c.Destinations = []config.Destination{{Name: "log", Type: "kafka", Kafka: config.KafkaDestination{Brokers: []string{"localhost:9092"}, Topic: "events"}, Choice: config.Choice{Events: []string{"all"}}}}
		}, nil, ""},
		{"nats with a wrong subject", func(c *config.Config) {
			c.Destinations = []config.Destination{{Name: "queue", Type: "nats", NATS: config.NATSDestination{Subject: "events..a", NATSServers: config.NATSServers{URL: "nats://localhost"}}}}
		}, nil, "destination[1]: empty token"},
		{"no words", func(c *config.Config) {
			c.Destinations = []config.Destination{{Name: "crm", Type: "http", URL: "http://localhost", Choice: config.Choice{Events: []string{"user_status"}}}}
		}, nil, "destination[1]: has no words for user_status.online"},
		{"a wrong template", func(c *config.Config) {
			c.Destinations = []config.Destination{{Name: "crm", Type: "http", URL: "http://localhost", Choice: config.Choice{Format: "template", Template: "{{.boddy}}", ContentType: "text/plain"}}}
		}, nil, "destination[1]: .boddy"},
		{"never true", func(c *config.Config) {
			c.Destinations = []config.Destination{{Name: "crm", Type: "http", URL: "http://localhost", Choice: config.Choice{When: "x"}}}
		}, []string{"chat.in"}, "destination[1].when: never true of the events that it is asked about (chat.in)"},
		{"never true of sns", func(c *config.Config) { c.Pusher.SNS.When = "x" }, []string{"chat.in"}, "modules.mod_event_pusher.sns.when: never true"},
		{"no exchange", func(c *config.Config) { c.Pusher.Rabbit.Events = []string{"user_status"} }, nil, "modules.mod_event_pusher.rabbit: gets no events"},
		{"no place for attributes", func(c *config.Config) { c.Pusher.SNS.Choice.Format = "cloudevents_binary" }, nil, "modules.mod_event_pusher.sns: cloudevents_binary"},
		{"a name of another one", func(c *config.Config) {
			c.Destinations = []config.Destination{{Name: "sns", Type: "http", URL: "http://localhost"}}
		}, nil, "destination[1]: is called \"sns\""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := full("localhost:1")
			tc.change(cfg)
			never, err := event.ParseSelection(tc.never)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range catalog.Check(cfg, nil, func(_ string, e *event.Event) bool { return !never.Has(e) }, nil) {
				got = append(got, p.Path+": "+p.Text)
			}
			if tc.want == "" {
				if len(got) > 0 {
					t.Error(got)
				}
				return
			}
			path, text, _ := strings.Cut(tc.want, ": ")
			if len(got) != 1 || !strings.HasPrefix(got[0], path+": ") || !strings.Contains(got[0], text) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// What config complains of is not said again, and hides nothing else.
func TestCheckAddsToEarlierProblems(t *testing.T) {
	earlier := []config.Problem{
		{Severity: config.Error, Path: "modules.mod_event_pusher.sns.sns_host"},
		{Severity: config.Error, Path: "outgoing_pools.http.http_pool.connection.host"},
		{Severity: config.Error, Path: "outgoing_pools.http.Other.connection.tls.cacertfile"},
		{Severity: config.Error, Path: "outgoing_pools.rabbit.event_pusher.connection.tls.certfile"},
		{Severity: config.Error, Path: "modules.mod_event_pusher.http.handlers[4].name"},
		{Severity: config.Error, Path: "push.app[1].apns.key_file"},
		{Severity: config.Error, Path: "push.app[2].fcm.credentials"},
	}
	missing := &config.TLS{CACertFile: "/nonexistent"}
	cfg := full("localhost:1", config.HTTPHandler{PoolName: "http_pool", Name: "a"}, config.HTTPHandler{PoolName: "Other"},
		config.HTTPHandler{PoolName: "Other", Path: "%zz"}, config.HTTPHandler{PoolName: "Other", Path: "b", Name: "sns"})
	cfg.Pusher.SNS.Host = ""
	cfg.Pools.HTTP = map[string]config.HTTPPool{"http_pool": {TLS: missing}, "Other": {Host: "https://localhost", TLS: missing}}
	cfg.Pools.Rabbit.TLS = missing
	cfg.Pusher.Push = &config.Push{}
	cfg.AppServer.Apps = []config.PushApp{
		{Name: "a", APNs: &config.PushAPNs{KeyID: "ABC123DEFG", TeamID: "DEF123GHIJ", Topics: []string{"t"}}}, {Name: "b", FCM: &config.PushFCM{}},
	}
	got := catalog.Check(cfg, earlier, nil, nil)
	if len(got) != 2 || got[0].Path != "modules.mod_event_pusher.http.handlers[1]" || !strings.Contains(got[0].Text, "cacertfile") ||
		got[1].Path != "modules.mod_event_pusher.http.handlers[3]" {
		t.Errorf("%v, want the certificates of http_pool and the third handler's path", got)
	}
	if cfg.Pusher.SNS.Host != "" || cfg.Pools.HTTP["http_pool"].Host != "" || cfg.Pools.Rabbit.TLS == nil {
		t.Error("the configuration was changed")
	}
}

// What check says about calls at once is what the backends do.
func TestCallsAtOnce(t *testing.T) {
	for _, tc := range []struct{ configured, sns, rabbit int }{
		{1, 1, 1}, {1000, config.MaxSNSCalls, config.MaxRabbitChannels},
	} {
		cfg := full("localhost:1")
		cfg.Pusher.SNS.PoolSize, cfg.Pools.Rabbit.Workers = tc.configured, tc.configured
		built, err := catalog.Build(cfg, discard, nil)
		if err != nil {
			t.Fatal(err)
		}
		lanes := map[string]int{}
		for _, b := range built {
			lanes[b.Name()] = b.Limits().Lanes
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff(map[string]int{"sns": tc.sns, "rabbit": tc.rabbit}, lanes); diff != "" {
			t.Errorf("%d configured (-want +got):\n%s", tc.configured, diff)
		}
	}
}

// Parts are the same if the same backend would come of them: conditions do not matter, and what the
// files hold that are read for it does.
func TestSamePart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file.pem")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	parts := func(change func(*config.Config)) []catalog.Part {
		cfg := full("localhost:1", config.HTTPHandler{PoolName: "Other"})
		cfg.Destinations = []config.Destination{{Name: "crm", Type: "http", URL: "https://localhost", TLS: &config.TLS{CACertFile: file}}, {Name: "own", Type: "own", Files: []string{file}}}
		change(cfg)
		return catalog.Parts(cfg)
	}
	before := parts(func(*config.Config) {})
	differ := func(after []catalog.Part) (names []string) {
		t.Helper()
		if len(after) != len(before) {
			t.Fatalf("%d parts, before %d", len(after), len(before))
		}
		for i := range after {
			if !after[i].Same(&before[i]) {
				names = append(names, after[i].Name)
			}
		}
		return names
	}
	for name, tc := range map[string]struct {
		change func(*config.Config)
		want   []string
	}{
		"nothing": {func(*config.Config) {}, nil},
		"conditions": {func(c *config.Config) {
			c.Pusher.SNS.When, c.Pusher.Rabbit.When, c.Pusher.HTTP.Handlers[0].When, c.Destinations[0].When = "true", "true", "true", "true"
		}, nil},
		"hosts, which sns asks for":    {func(c *config.Config) { c.General.Hosts = []string{"other.example"} }, []string{"sns"}},
		"the pool of rabbit":           {func(c *config.Config) { p := *c.Pools.Rabbit; p.Window++; c.Pools.Rabbit = &p }, []string{"rabbit"}},
		"a url":                        {func(c *config.Config) { c.Destinations[0].URL = "https://localhost/2" }, []string{"crm"}},
		"a size, and so what it is in": {func(c *config.Config) { c.Destinations[0].TooLarge = config.TruncateBody }, []string{"crm"}},
		"contents of a file":           {func(*config.Config) { write("another") }, []string{"crm", "own"}},
	} {
		write("one")
		if err := os.Chtimes(file, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		before = parts(func(*config.Config) {})
		cfg := parts(tc.change)
		if got := differ(cfg); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q differ, want %q", name, got, tc.want)
		}
	}
}
