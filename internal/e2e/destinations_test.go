package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"eventpusher/event"
	"eventpusher/internal/harness"
)

// kafkaBroker is a broker of Kafka's protocol with one topic, which keeps its records over
// restarts.
type kafkaBroker struct {
	t       *testing.T
	dir     string
	address string
	fake    *kfake.Cluster
}

const kafkaTopic = "xmpp-events"

func startKafka(t *testing.T) *kafkaBroker {
	k := &kafkaBroker{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	k.start()
	t.Cleanup(func() { k.fake.Close() })
	return k
}

// start starts the broker, always on the same port.
func (k *kafkaBroker) start() {
	k.t.Helper()
	await(k.t, "a broker at "+k.address, func() bool {
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, kafkaTopic), kfake.DataDir(k.dir), kfake.SyncWrites(),
			kfake.ListenFn(func(network, _ string) (net.Listener, error) {
				l, err := net.Listen(network, k.address)
				if err == nil {
					k.address = l.Addr().String()
				}
				return l, err
			}))
		k.fake = fake
		return err == nil
	})
}

// events returns what the topic has, each partition in its order.
func (k *kafkaBroker) events() (all []event.Event) {
	k.t.Helper()
	left := 0
	for _, p := range k.fake.PartitionInfos(kafkaTopic) {
		left += int(p.HighWatermark)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(k.address), kgo.ConsumeTopics(kafkaTopic))
	if err != nil {
		k.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(k.t.Context(), limit)
	defer cancel()
	for len(all) < left {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			k.t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			all = append(all, decoded(k.t, r.Value))
		}
	}
	return all
}

func decoded(t *testing.T, data []byte) (e event.Event) {
	t.Helper()
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return e
}

// stream is one of NATS JetStream that takes what destinations publish.
type stream struct {
	t      *testing.T
	server *harness.NATSServer
}

func startStream(t *testing.T) *stream {
	s := &stream{t, harness.NATS(t, harness.NATSOptions{})}
	s.use(func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}})
		return err
	})
	return s
}

func (s *stream) use(do func(context.Context, jetstream.JetStream) error) {
	s.t.Helper()
	conn, err := natsgo.Connect(s.server.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	if err := do(ctx, js); err != nil {
		s.t.Fatal(err)
	}
}

// events returns what the stream has, in its order.
func (s *stream) events() (all []event.Event) {
	s.t.Helper()
	s.use(func(ctx context.Context, js jetstream.JetStream) error {
		st, err := js.Stream(ctx, "EVENTS")
		if err != nil {
			return err
		}
		for n := uint64(1); n <= st.CachedInfo().State.LastSeq; n++ {
			m, err := st.GetMsg(ctx, n)
			if err != nil {
				return err
			}
			all = append(all, decoded(s.t, m.Data))
		}
		return nil
	})
	return all
}

// TestQueuesAreRestarted: what a real server's users write arrives in NATS and in Kafka, in the
// order of each conversation, also what comes while they are down.
func TestQueuesAreRestarted(t *testing.T) {
	const rate = 100 // messages a second
	server := harness.Prosody(t, harness.ProsodyOptions{EventFeed: true, Users: users})
	nats, kafka, sink := startStream(t), startKafka(t), harness.HTTPSink(t)
	w := &world{t: t}
	w.run(fmt.Sprintf(`
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

[[destination]]
name = "stream"
type = "nats"
url = %q
stream = "EVENTS"
subject = "events.{{.sort}}.{{.user}}"
events = ["chat.in"]

[[destination]]
name = "log"
type = "kafka"
brokers = [%q]
topic = %q
events = ["chat.in"]

[[destination]]
name = "batches"
type = "http"
url = %q
format = "json"
events = ["chat.in"]
batch_size = 50
`, server.ComponentAddr(server.Component), t.TempDir(), nats.server.URL(), kafka.address, kafkaTopic, sink.URL()))
	await(t, "readiness", w.ready)

	load := press(t, server, 0, rate)
	await(t, "the first messages", func() bool { return len(nats.events()) > 10 && len(kafka.events()) > 10 })
	nats.server.Stop()
	kafka.fake.Close()
	before := handled(load.clients[0])
	await(t, "messages while both are down", func() bool { return handled(load.clients[0]) > before+rate/8 })
	nats.server.Start()
	kafka.start()
	before = handled(load.clients[0])
	await(t, "messages after that", func() bool { return handled(load.clients[0]) > before+rate/8 })
	sent := load.stop(false)

	fromSink := func() (all []event.Event) {
		for _, r := range sink.Requests() {
			var batch []event.Event
			if err := json.Unmarshal(r.Body, &batch); err != nil {
				t.Fatalf("%v: %s", err, r.Body)
			}
			all = append(all, batch...)
		}
		return all
	}
	for name, events := range map[string]func() []event.Event{"nats": nats.events, "kafka": kafka.events, "http": fromSink} {
		await(t, "all messages at "+name, func() bool { return len(numbers(events())) >= len(sent) })
		list := events()
		t.Logf("figures: %s: %d messages sent, %d events", name, len(sent), len(list))
		if name == "nats" && len(list) != len(sent) { // it recognises what is published again
			t.Errorf("nats has %d events of %d messages", len(list), len(sent))
		}
		last := make(map[string]int)
		for _, e := range list {
			conversation, n := string(e.From+" "+e.To), number(e)
			if n < last[conversation] {
				t.Errorf("%s: message %d of %s is behind %d", name, n, conversation, last[conversation])
			}
			last[conversation] = n
		}
		for _, n := range sent {
			if !numbers(list)[n] {
				t.Errorf("%s: message %d has not arrived", name, n)
			}
		}
	}
	if n := len(sink.Requests()); n >= len(sent) {
		t.Errorf("%d requests for %d events", n, len(sent))
	}
}

// number is that of a message of press.
func number(e event.Event) (n int) {
	var round int
	fmt.Sscan(e.Body, &round, &n)
	return n
}

func numbers(events []event.Event) map[int]bool {
	all := make(map[int]bool)
	for _, e := range events {
		all[number(e)] = true
	}
	return all
}
