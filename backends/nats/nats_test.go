package nats_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/nats"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience only matters when something is broken.
const patience = 2 * time.Minute

// broker is a NATS server with one stream, seen by a consumer.
type broker struct {
	t      testing.TB
	js     jetstream.JetStream
	stream jetstream.Stream
}

const streamName = "EVENTS"

// largest is the stream's max_msg_size in bytes.
const largest = 64 << 10

// connect connects to a server; create makes the stream.
func connect(t testing.TB, url string, options ...natsgo.Option) *broker {
	t.Helper()
	conn, err := natsgo.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return &broker{t: t, js: js}
}

func (b *broker) create(c jetstream.StreamConfig) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.Name, c.Storage, c.MaxMsgSize = streamName, jetstream.MemoryStorage, largest
	_ = b.js.DeleteStream(ctx, streamName)
	var err error
	if b.stream, err = b.js.CreateStream(ctx, c); err != nil {
		b.t.Fatal(err)
	}
}

// messages returns all that the stream has.
func (b *broker) messages() (all []*jetstream.RawStreamMsg) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info, err := b.stream.Info(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for n := uint64(1); n <= info.State.LastSeq; n++ {
		m, err := b.stream.GetMsg(ctx, n)
		if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func (b *broker) deliveries() (all []backendtest.Delivery) {
	for _, m := range b.messages() {
		var e event.Event
		if err := json.Unmarshal(m.Data, &e); err != nil {
			b.t.Fatal(err)
		}
		d := backendtest.Delivery{ID: m.Header.Get("Nats-Msg-Id"), Body: e.Body, Metadata: map[string]string{}}
		for key, value := range e.Metadata {
			if n, ok := value.(float64); ok {
				value = int64(n) // as JSON has it
			}
			d.Metadata[key] = event.Metadata{key: value}.Text(key)
		}
		all = append(all, d)
	}
	return all
}

func destination(url, subject string) config.Destination {
	return config.Destination{Name: "queue", Type: "nats", NATS: config.NATSDestination{
		NATSServers: config.NATSServers{URL: url}, Subject: subject,
	}}
}

func build(t testing.TB, d config.Destination, log *slog.Logger) *nats.Backend {
	t.Helper()
	b, err := nats.New(d, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func publish(t testing.TB, b *nats.Backend, batch ...event.Event) []error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return b.Publish(ctx, batch)
}

// wantErrors compares errors with a reason and a part of the text each, "" for none.
func wantErrors(t testing.TB, errs []error, want ...string) {
	t.Helper()
	if len(errs) != len(want) {
		t.Fatalf("%v, want %q", errs, want)
	}
	for i, err := range errs {
		reason, part, _ := strings.Cut(want[i], " ")
		if backends.Reason(err) != reason || err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("event %d: %v (%s), want %q", i, err, backends.Reason(err), want[i])
		}
		if err != nil && strings.Contains(err.Error(), "user0") {
			t.Errorf("an address is in an error: %v", err)
		}
	}
}

func TestConformance(t *testing.T) {
	const user, password = "eventpusher", "hunter2"
	server := harness.NATS(t, harness.NATSOptions{Username: user, Password: password})
	broker := connect(t, server.URL(), natsgo.UserInfo(user, password))
	backendtest.Run(t, func(*testing.T) backendtest.Service {
		broker.create(jetstream.StreamConfig{Subjects: []string{"events.>"}})
		return backendtest.Service{
			Address: fmt.Sprintf("127.0.0.1:%d", server.Port),
			New: func(address string, log *slog.Logger) (backends.Backend, error) {
				d := destination("nats://"+address, "events.{{.sort}}.{{.user}}")
				d.NATS.Username, d.NATS.Password, d.NATS.Stream = user, password, streamName
				return nats.New(d, log)
			},
			Deliveries: broker.deliveries,
			Refuse: func(e *event.Event) string {
				e.Body += strings.Repeat("x", largest)
				return "too_large"
			},
			Secrets: []string{password},
		}
	})
}

// TestMessage: subjects are safe whatever users write, and the headers are those of the
// CloudEvents binding.
func TestMessage(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{})
	broker := connect(t, server.URL())
	broker.create(jetstream.StreamConfig{Subjects: []string{"%5FINBOX%2Ea%3E@ex%C3%A4mple%2Eorg.>"}})
	d := destination(server.URL(), "{{.user}}.{{.sort}}.{{.body}}.{{.room}}")
	d.Format = config.FormatCloudEventsBinary
	b := build(t, d, slog.New(slog.DiscardHandler))
	e := backendtest.Message(0)
	e.From, e.User, e.Body, e.Host = "_INBOX.a>@exämple.org/desk", "_INBOX.a>@exämple.org", "$JS.> *.\r\n", "example.org"
	wantErrors(t, b.Publish(backends.WithEpoch(t.Context(), 7), []event.Event{e}), "")
	m := broker.messages()[0]
	if want := "%5FINBOX%2Ea%3E@ex%C3%A4mple%2Eorg.chat.in.%24JS%2E%3E%20%2A%2E%0D%0A.-"; m.Subject != want {
		t.Errorf("subject %s, want %s", m.Subject, want)
	}
	want := natsgo.Header{
		"Nats-Msg-Id": {e.ID}, "eventpusher-epoch": {"7"}, "ce-datacontenttype": {"application/json"},
		"ce-specversion": {"1.0"}, "ce-id": {e.ID}, "ce-source": {"xmpp:example.org"}, "ce-type": {"eventpusher.chat.in"},
		"ce-subject": {"_INBOX.a>@ex%C3%A4mple.org"}, "ce-time": {"2026-11-22T12:00:00Z"},
	}
	if diff := cmp.Diff(want, m.Header); diff != "" {
		t.Error(diff)
	}
}

// TestTwice: an event whose acknowledgement is lost is in the stream once.
func TestTwice(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{})
	broker := connect(t, server.URL())
	broker.create(jetstream.StreamConfig{Subjects: []string{"events"}})
	proxy := backendtest.StartProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	b := build(t, destination("nats://"+proxy.Address(), "events"), slog.New(slog.DiscardHandler))
	wantErrors(t, publish(t, b, backendtest.Message(0)), "")
	first := broker.messages()
	wantErrors(t, publish(t, b, backendtest.Messages(0, 2)...), "", "")
	proxy.Down()
	proxy.Resume()
	for backends.Reason(publish(t, b, backendtest.Message(1))[0]) != "" { // the loss shows with the first write
	}
	if all := broker.messages(); len(first) != 1 || len(all) != 2 {
		t.Errorf("%d, then %d messages, want 1, then 2", len(first), len(all))
	}
}

// TestVerdicts: what a stream or the server refuses.
func TestVerdicts(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{Extra: "max_payload: 128KB\n"})
	broker := connect(t, server.URL())
	publishTo := func(t *testing.T, subject, stream string, batch ...event.Event) []error {
		d := destination(server.URL(), subject)
		d.NATS.Stream = stream
		return publish(t, build(t, d, slog.New(slog.DiscardHandler)), batch...)
	}
	ordinary, large, huge := backendtest.Message(0), backendtest.Message(1), backendtest.Message(2)
	large.Body, huge.Body = strings.Repeat("x", largest), strings.Repeat("x", 2*largest)
	long := backendtest.Message(3)
	long.User = "user0@localhost"
	long.Body = strings.Repeat("x", 4096)

	t.Run("sizes", func(t *testing.T) {
		broker.create(jetstream.StreamConfig{Subjects: []string{"events.>"}})
		wantErrors(t, publishTo(t, "events.a", "", ordinary, large, huge), "", "too_large max_msg_size", "too_large max_payload")
		wantErrors(t, publishTo(t, "events.{{.body}}", "", long), "permanent bytes")
	})
	t.Run("another stream", func(t *testing.T) {
		wantErrors(t, publishTo(t, "events.a", "OTHER", ordinary), `paused another stream than "OTHER"`)
	})
	t.Run("no stream", func(t *testing.T) {
		wantErrors(t, publishTo(t, "nowhere", "", ordinary), "paused no stream takes nowhere")
		one, other := backendtest.Message(10), backendtest.Message(11)
		one.Type, other.Type = "chat", "normal"
		broker.create(jetstream.StreamConfig{Subjects: []string{"events.chat"}})
		// That one subject is missing says nothing about the others.
		wantErrors(t, publishTo(t, "events.{{.type}}", "", one, other), "", "transient no stream takes events.{{.type}}")
	})
	t.Run("full", func(t *testing.T) {
		broker.create(jetstream.StreamConfig{Subjects: []string{"events"}, MaxMsgs: 1, Discard: jetstream.DiscardNew})
		wantErrors(t, publishTo(t, "events", "", ordinary, backendtest.Message(20)), "", "transient maximum messages exceeded")
	})
	t.Run("sealed", func(t *testing.T) {
		broker.create(jetstream.StreamConfig{Subjects: []string{"events"}})
		c := broker.stream.CachedInfo().Config
		c.Sealed = true
		if _, err := broker.js.UpdateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		wantErrors(t, publishTo(t, "events", "", ordinary), "paused sealed")
	})
}

// lines collects what a logger writes.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// TestDenied: a refusal comes aside from any answer. The library writes such things to the
// standard error if nobody takes them.
func TestDenied(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{Extra: `authorization { users: [
		{ user: all, password: p },
		{ user: some, password: p, permissions: { publish: { deny: ["events.user0%40localhost.>", "events.user0@localhost.>", "denied"] }, subscribe: "_INBOX.>" } },
		{ user: deaf, password: p, permissions: { subscribe: { deny: "_INBOX.>" } } },
	] }
`})
	broker := connect(t, server.URL(), natsgo.UserInfo("all", "p"))
	broker.create(jetstream.StreamConfig{Subjects: []string{"events.>", "denied"}})
	file, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stderr := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = stderr }()

	var said lines
	as := func(user, subject string) *nats.Backend {
		d := destination(server.URL(), subject)
		d.NATS.Username, d.NATS.Password = user, "p"
		b, err := nats.New(d, slog.New(slog.NewTextHandler(&said, nil)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tc := range []struct {
		user, subject string
		want          []string
	}{
		{"some", "denied", []string{"paused grant the user publish", "paused grant"}},
		{"some", "events.{{.user}}.{{.type}}", []string{"transient grant the user publish", ""}},
		{"deaf", "events.x", []string{"paused subscribe on _INBOX", "paused _INBOX"}},
	} {
		b := as(tc.user, tc.subject)
		wantErrors(t, publish(t, b, backendtest.Messages(0, 2)...), tc.want...)
		b.Close()
	}
	if text, err := os.ReadFile(file.Name()); err != nil || len(text) > 0 {
		t.Errorf("on the standard error: %s %v", text, err)
	}
	if text := said.String(); strings.Contains(text, "user0") {
		t.Errorf("the log shows addresses: %s", text)
	}
}

// TestConnections: as whom, and over TLS.
func TestConnections(t *testing.T) {
	open := harness.NATS(t, harness.NATSOptions{})
	closed := harness.NATS(t, harness.NATSOptions{TLS: true, Username: "u", Password: "hunter2"})
	gone := harness.NATS(t, harness.NATSOptions{})
	gone.Stop()
	for _, tc := range []struct {
		name   string
		change func(*config.NATSServers)
		want   string
	}{
		{"plain", func(c *config.NATSServers) { c.URL = open.URL() }, ""},
		{"the second of two", func(c *config.NATSServers) { c.URL = gone.URL() + ", " + open.URL() }, ""},
		{"none of two", func(c *config.NATSServers) { c.URL = gone.URL() + ", " + gone.URL() }, "transient connection refused"},
		{"TLS", func(c *config.NATSServers) {
			c.URL, c.Username, c.Password, c.TLS = closed.URL(), "u", "hunter2", &config.TLS{CACertFile: closed.CAFile}
		}, ""},
		{"wrong password", func(c *config.NATSServers) {
			c.URL, c.Username, c.Password, c.TLS = closed.URL(), "u", "hunter3", &config.TLS{CACertFile: closed.CAFile}
		}, "paused check credentials_file"},
		{"unknown authority", func(c *config.NATSServers) {
			c.URL, c.Username, c.Password, c.TLS = closed.URL(), "u", "hunter2", new(config.TLS)
		}, "paused unknown authority"},
		{"TLS wanted", func(c *config.NATSServers) { c.URL = strings.Replace(open.URL(), "nats:", "tls:", 1) }, "paused does not speak TLS"},
		{"TLS required", func(c *config.NATSServers) { c.URL = closed.URL() }, "paused unknown authority"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := destination("", "events")
			tc.change(&d.NATS.NATSServers)
			b := build(t, d, slog.New(slog.DiscardHandler))
			err := b.Prepare(t.Context())
			wantErrors(t, []error{err}, tc.want)
			if err != nil && strings.Contains(err.Error(), "hunter") {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
}

func TestRefusedOptions(t *testing.T) {
	for subject, want := range map[string]string{
		"a b": "blank", "a..b": "empty token", "": "empty", "a.>": "wildcard", "$JS.API.x": "begins with", "_INBOX.x": "begins with", "{{.x": "template:1", "{{.nothing}}": ".nothing",
	} {
		if _, err := nats.New(destination("nats://localhost", subject), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", subject, err, want)
		}
	}
	d := destination("nats://localhost", "events")
	d.Format = config.FormatMongooseIM
	if _, err := nats.New(d, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "MongooseIM has no such destination") {
		t.Errorf("%v", err)
	}
}

func TestProbe(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{})
	broker := connect(t, server.URL())
	probe := func(subject, stream string, want ...string) {
		t.Helper()
		d := destination(server.URL(), subject)
		d.NATS.Stream = stream
		b := build(t, d, slog.New(slog.DiscardHandler))
		backendtest.WantFindings(t, b.Probe(t.Context()), nil, want...)
	}
	probe("events", "", "OK connected to NATS", "FAIL nats stream add EVENTS --subjects='events'")
	probe("a.events-{{.sort}}", "", "OK connected to NATS", "FAIL nats stream add EVENTS --subjects='a.>'")
	broker.create(jetstream.StreamConfig{Subjects: []string{"events.>"}, Duplicates: time.Minute})
	probe("events.{{.sort}}", "", "OK connected", "OK recognises repeated ones for 1m0s")
	probe("events.x", "OTHER", "OK connected", "FAIL takes the events, and not OTHER")
	broker.create(jetstream.StreamConfig{Subjects: []string{"events.*"}, NoAck: true})
	probe("events.{{.kind}}", "", "OK connected", "FAIL no_ack")
	none := harness.NATS(t, harness.NATSOptions{NoJetStream: true})
	b := build(t, destination(none.URL(), "events"), slog.New(slog.DiscardHandler))
	backendtest.WantFindings(t, b.Probe(t.Context()), nil, "OK connected", "FAIL there is no JetStream")
	wantErrors(t, publish(t, b, backendtest.Message(0)), "paused start JetStream")
	none.Stop()
	backendtest.WantFindings(t, b.Probe(t.Context()), nil, "FAIL connection refused")
}
