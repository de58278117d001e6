package kafka_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/kafka"
	"eventpusher/config"
	"eventpusher/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	topic = "xmpp-events"
	// patience only matters when something is broken.
	patience = 2 * time.Minute
)

// listener is a broker's socket. Clients learn from the broker where to connect; here it
// can name another address, such as that of a proxy.
type listener struct {
	net.Listener
	named atomic.Pointer[net.TCPAddr]
}

func (l *listener) Addr() net.Addr {
	if a := l.named.Load(); a != nil {
		return a
	}
	return l.Listener.Addr()
}

// cluster is one broker with a topic of three partitions.
type cluster struct {
	*kfake.Cluster
	t       testing.TB
	address string
	socket  *listener
}

func start(t testing.TB, options ...kfake.Opt) *cluster {
	t.Helper()
	c := &cluster{t: t}
	fake, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.SeedTopics(3, topic),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			l, err := net.Listen(network, "127.0.0.1:0")
			c.socket = &listener{Listener: l}
			return c.socket, err
		}),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c.Cluster, c.address = fake, c.socket.Listener.Addr().String()
	return c
}

// nameItself makes the broker send clients to another address.
func (c *cluster) nameItself(address string) {
	c.t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		c.t.Fatal(err)
	}
	c.socket.named.Store(a)
}

// records returns all that the topic has, each partition in its order.
func (c *cluster) records(options ...kgo.Opt) (all []*kgo.Record) {
	c.t.Helper()
	want := 0
	for _, p := range c.PartitionInfos(topic) {
		want += int(p.HighWatermark)
	}
	consumer, err := kgo.NewClient(append(options, kgo.SeedBrokers(c.address), kgo.ConsumeTopics(topic),
		kgo.Dialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, c.address)
		}))...)
	if err != nil {
		c.t.Fatal(err)
	}
	defer consumer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for len(all) < want {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			c.t.Fatal(err)
		}
		all = append(all, fetches.Records()...)
	}
	return all
}

func headers(r *kgo.Record) map[string]string {
	all := make(map[string]string)
	for _, h := range r.Headers {
		all[h.Key] = string(h.Value)
	}
	return all
}

func (c *cluster) deliveries() (all []backendtest.Delivery) {
	c.t.Helper()
	for _, r := range c.records() {
		var e event.Event
		if err := json.Unmarshal(r.Value, &e); err != nil {
			c.t.Fatal(err)
		}
		d := backendtest.Delivery{ID: headers(r)["event-id"], Body: e.Body, Metadata: map[string]string{}}
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

func destination(brokers ...string) config.Destination {
	return config.Destination{Name: "log", Type: "kafka", Kafka: config.KafkaDestination{Brokers: brokers, Topic: topic}}
}

func build(t testing.TB, d config.Destination) *kafka.Backend {
	t.Helper()
	b, err := kafka.New(d, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func publish(t testing.TB, b *kafka.Backend, batch ...event.Event) []error {
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
	}
}

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backendtest.Service {
		c := start(t)
		return backendtest.Service{
			Address: c.address,
			New: func(address string, log *slog.Logger) (backends.Backend, error) {
				c.nameItself(address)
				return kafka.New(destination(address), log)
			},
			Deliveries: c.deliveries,
			Refuse: func(e *event.Event) string {
				e.Body += strings.Repeat("x", 2<<20)
				return "too_large"
			},
		}
	})
}

// TestRecord: key and headers, those of the CloudEvents binding among them.
func TestRecord(t *testing.T) {
	c := start(t)
	d := destination(c.address)
	d.Format = config.FormatCloudEventsBinary
	b := build(t, d)
	e, answer := backendtest.Message(0), backendtest.Message(1)
	e.Host = "exämple.org"
	answer.Direction, answer.From, answer.To, answer.User = event.Out, e.To, e.From, e.User
	wantErrors(t, b.Publish(backends.WithEpoch(t.Context(), 7), []event.Event{e, answer}), "", "")
	records := c.records()
	want := map[string]string{
		"event-id": e.ID, "content-type": "application/json", "eventpusher-epoch": "7",
		"ce_specversion": "1.0", "ce_id": e.ID, "ce_source": "xmpp:ex%C3%A4mple.org", "ce_type": "eventpusher.chat.in",
		"ce_subject": "user0@localhost", "ce_time": "2026-11-22T12:00:00Z",
	}
	if diff := cmp.Diff(want, headers(records[0])); diff != "" {
		t.Error(diff)
	}
	if first, second := records[0], records[1]; string(first.Key) != "user0@localhost bob@localhost" || string(second.Key) != string(first.Key) || first.Partition != second.Partition {
		t.Errorf("keys %q and %q, partitions %d and %d", first.Key, second.Key, first.Partition, second.Partition)
	}
}

// TestOrder: what fails in between comes again before what follows in its conversation.
func TestOrder(t *testing.T) {
	c := start(t)
	b := build(t, destination(c.address))
	var want []string
	for n := range 20 {
		e := backendtest.Message(n)
		e.From, e.User = "alice@localhost/res", "alice@localhost"
		want = append(want, e.ID)
		if n%5 == 2 { // written, but the answer says that nobody knows
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 3})
		}
		for backends.Reason(publish(t, b, e)[0]) != "" {
		}
	}
	var got []string
	for _, d := range c.deliveries() {
		if len(got) == 0 || got[len(got)-1] != d.ID {
			got = append(got, d.ID)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestTooLarge: one record that is too large for the topic does not take along others that
// the library puts into the same request.
func TestTooLarge(t *testing.T) {
	c := start(t, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "20000"}))
	b := build(t, destination(c.address))
	batch := backendtest.Messages(0, 100)
	want := make([]string, len(batch))
	noise := make([]byte, 20000)
	rand.Read(noise)
	for i := range noise {
		noise[i] = ' ' + noise[i]%64 // not to be compressed to less
	}
	batch[7].Body, batch[50].Body = string(noise), string(noise)
	want[7], want[50] = "too_large max.message.bytes", "too_large bytes"
	wantErrors(t, publish(t, b, batch...), want...)
	if n := len(c.deliveries()); n != 98 {
		t.Errorf("%d records, want 98", n)
	}
}

// TestVerdicts: what each answer of a broker means.
func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		err  *kerr.Error
		want string
	}{
		{kerr.TopicAuthorizationFailed, "paused grant the user Write"},
		{kerr.ClusterAuthorizationFailed, "paused IdempotentWrite"},
		{kerr.InvalidRecord, "permanent INVALID_RECORD"},
		{kerr.PolicyViolation, "permanent POLICY_VIOLATION"},
		{kerr.KafkaStorageError, "transient"},
		{kerr.NotEnoughReplicas, "transient"},
		{kerr.UnknownServerError, "transient UNKNOWN_SERVER_ERROR"},
	} {
		t.Run(tc.err.Message, func(t *testing.T) {
			c := start(t)
			b := build(t, destination(c.address))
			fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: tc.err, Count: -1})
			if tc.want == "transient" { // until its time is over
				quick, err := kafka.NewWithin(destination(c.address), slog.New(slog.DiscardHandler), time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer quick.Close()
				wantErrors(t, publish(t, quick, backendtest.Message(0)), tc.want)
			} else {
				wantErrors(t, publish(t, b, backendtest.Message(0)), tc.want)
			}
			fault.Remove()
			wantErrors(t, publish(t, b, backendtest.Message(0)), "")
		})
	}
}

// TestRefusedTogether: a broker refuses a request for one of its records. The others are no
// dead letters for that.
func TestRefusedTogether(t *testing.T) {
	for _, refusal := range []*kerr.Error{kerr.InvalidRecord, kerr.PolicyViolation} {
		c := start(t)
		b := build(t, destination(c.address))
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: refusal, Count: 1})
		for i, err := range b.Publish(t.Context(), backendtest.Messages(0, 20)) {
			if err != nil {
				t.Errorf("%v: record %d: %v", refusal, i, err)
			}
		}
	}
}

// TestTopic: a topic that is not there, is created, deleted and created again.
func TestTopic(t *testing.T) {
	c := start(t)
	d := destination(c.address)
	d.Kafka.Topic = "missing"
	b := build(t, d)
	wantErrors(t, publish(t, b, backendtest.Message(0)), "paused create the topic")
	backendtest.WantFindings(t, b.Probe(t.Context()), nil, "FAIL create the topic")
	for range 2 {
		if err := c.CreateTopic("missing", 1, nil); err != nil {
			t.Fatal(err)
		}
		for reason := "paused"; reason != ""; {
			if reason = backends.Reason(publish(t, b, backendtest.Message(0))[0]); reason != "" && reason != "paused" && reason != "transient" {
				t.Fatal(reason)
			}
		}
		if err := c.DeleteTopic("missing"); err != nil {
			t.Fatal(err)
		}
	}
	wantErrors(t, publish(t, b, backendtest.Message(0)), "paused create the topic")
}

// TestLogin: SASL, and TLS with an authority of its own.
func TestLogin(t *testing.T) {
	certificate, authority := selfSigned(t)
	c := start(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "joe", "hunter2"), kfake.Superuser("SCRAM-SHA-256", "ann", "hunter2"),
		kfake.Superuser("SCRAM-SHA-512", "eve", "hunter2"), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}))
	c.refuseAs("hunter3")
	for _, tc := range []struct {
		name                      string
		mechanism, user, password string
		tls                       *config.TLS
		want                      string
	}{
		{"plain", "plain", "joe", "hunter2", &config.TLS{CACertFile: authority}, ""},
		{"scram-sha-256", "scram-sha-256", "ann", "hunter2", &config.TLS{CACertFile: authority}, ""},
		{"scram-sha-512", "scram-sha-512", "eve", "hunter2", &config.TLS{CACertFile: authority}, ""},
		{"wrong plain password", "plain", "joe", "hunter3", &config.TLS{CACertFile: authority}, "paused check sasl, username and password"},
		{"unknown authority", "plain", "joe", "hunter2", new(config.TLS), "paused cacertfile"},
		{"a broker that hangs up", "plain", "joe", "hunter4", &config.TLS{CACertFile: authority}, "transient check tls, sasl"},
		{"no login", "", "", "", &config.TLS{CACertFile: authority}, "transient SASL"},
		{"no TLS", "plain", "joe", "hunter2", nil, "transient TLS"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := destination(c.address)
			d.Kafka.SASL, d.Kafka.Username, d.Kafka.Password, d.Kafka.TLS = tc.mechanism, tc.user, config.Secret(tc.password), tc.tls
			errs := publish(t, build(t, d), backendtest.Message(0))
			wantErrors(t, errs, tc.want)
			if errs[0] != nil && strings.Contains(errs[0].Error(), "hunter") {
				t.Errorf("a secret is shown: %v", errs[0])
			}
		})
	}
}

// refuseAs answers a login with this password as Kafka does (KIP-152). The fake hangs up.
func (c *cluster) refuseAs(password string) {
	c.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if !bytes.HasSuffix(r.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes, []byte(password)) {
			return nil, nil, false
		}
		answer := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return answer, nil, true
	})
}

// selfSigned returns a certificate for 127.0.0.1, and the file that vouches for it.
func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kafka"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func TestProbe(t *testing.T) {
	open := start(t)
	backendtest.WantFindings(t, build(t, destination(open.address)).Probe(t.Context()), nil, "OK topic xmpp-events has 3 partitions", "OK may write")
	closed := start(t, kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.User("PLAIN", "reader", "hunter2", kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true}),
		kfake.User("PLAIN", "writer", "hunter2", kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationWrite, Allow: true}))
	closed.refuseAs("hunter3")
	for user, want := range map[string][]string{
		"reader": {"OK connected to 1 brokers", "FAIL grant the user Write"},
		"writer": {"OK connected to 1 brokers", "OK may write"},
		"other":  {"FAIL check sasl"},
	} {
		d := destination(closed.address)
		d.Kafka.SASL, d.Kafka.Username, d.Kafka.Password = "plain", user, "hunter2"
		if user == "other" {
			d.Kafka.Password = "hunter3"
		}
		backendtest.WantFindings(t, build(t, d).Probe(t.Context()), []string{"hunter"}, want...)
	}
	open.Close()
	backendtest.WantFindings(t, build(t, destination(open.address)).Probe(t.Context()), nil, "FAIL connection refused")
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

// TestLog: what the library says is in our log, and nowhere else.
func TestLog(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stderr := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = stderr }()
	c := start(t)
	var said lines
	b, err := kafka.NewWithin(destination(c.address), slog.New(slog.NewJSONHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for backends.Reason(publish(t, b, backendtest.Message(0))[0]) != "" { // a second may be too short
	}
	c.Close()
	for range 2 { // the loss of the connection, and no broker
		wantErrors(t, publish(t, b, backendtest.Message(1)), "transient")
	}
	b.Close()
	said.mu.Lock()
	defer said.mu.Unlock()
	reports := 0
	for line := range strings.Lines(said.buf.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry["backend"] != "log" {
			t.Errorf("%v: %s", err, line)
		}
		if entry["msg"] == "the Kafka client reports" {
			reports++
		}
	}
	if reports == 0 {
		t.Errorf("the library said nothing: %s", said.buf.String())
	}
	if strings.Contains(said.buf.String(), "user0") {
		t.Errorf("the log shows addresses: %s", said.buf.String())
	}
	if text, err := os.ReadFile(file.Name()); err != nil || len(text) > 0 {
		t.Errorf("on the standard error: %s %v", text, err)
	}
}
