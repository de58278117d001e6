//go:build linux

package rabbit_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/rabbit"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/internal/jid"
)

var discard = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// poolFor returns the pool for a broker at address, without pauses between
// attempts to connect.
func poolFor(t testing.TB, b *harness.Broker, address string) config.RabbitPool {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return config.RabbitPool{
		Host: host, Port: n, Username: b.Username, Password: config.Secret(b.Password), VirtualHost: b.VHost,
		ConfirmsEnabled: true, Persistent: true, Mandatory: true, Window: 256,
	}
}

// exchange returns a chat exchange of a name that nobody else uses.
func exchange() *config.Exchange {
	return &config.Exchange{Name: "chat-" + rand.Text(), Type: "topic", SentTopic: "chat_msg_sent", RecvTopic: "chat_msg_recv"}
}

func newBackend(t testing.TB, x config.Rabbit, pool config.RabbitPool, log *slog.Logger) *rabbit.Backend {
	t.Helper()
	if log == nil {
		log = discard
	}
	b, err := rabbit.New(rabbit.Options{Name: rabbit.Name, Section: x, Pool: pool, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func mustPublish(t testing.TB, b *rabbit.Backend, batch []event.Event) {
	t.Helper()
	for i, err := range b.Publish(t.Context(), batch) {
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
}

func delivery(t testing.TB, d amqp.Delivery) backendtest.Delivery {
	t.Helper()
	fields := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(d.Body))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		t.Errorf("payload %q: %v", d.Body, err)
	}
	got := backendtest.Delivery{ID: d.MessageId, Metadata: map[string]string{}}
	got.Body, _ = fields["message"].(string)
	for key, value := range fields {
		if !event.ReservedKey(key) {
			got.Metadata[key] = fmt.Sprint(value)
		}
	}
	return got
}

func TestConformance(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	backendtest.Run(t, func(t *testing.T) backendtest.Service {
		x := exchange()
		consumer := broker.Consume(harness.Binding{Exchange: x.Name, Kind: x.Type, Key: "#"})
		return backendtest.Service{
			Address: broker.Addr(),
			New: func(address string, log *slog.Logger) (backends.Backend, error) {
				return rabbit.New(rabbit.Options{Name: rabbit.Name, Section: config.Rabbit{Chat: x}, Pool: poolFor(t, broker, address), Log: log})
			},
			Deliveries: func() []backendtest.Delivery {
				var all []backendtest.Delivery
				for _, d := range consumer.Drain() {
					all = append(all, delivery(t, d))
				}
				return all
			},
			Refuse: func(e *event.Event) string {
				e.From = jid.JID(strings.Repeat("x", 300)) + "@localhost"
				return "permanent"
			},
		}
	})
}

func TestGoldenSession(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	x := config.Rabbit{
		Presence:  &config.Exchange{Name: "presence", Type: "topic"},
		Chat:      &config.Exchange{Name: "chat_msg", Type: "topic", SentTopic: "chat_msg_sent", RecvTopic: "chat_msg_recv"},
		GroupChat: &config.Exchange{Name: "groupchat_msg", Type: "topic", SentTopic: "groupchat_msg_sent", RecvTopic: "groupchat_msg_recv"},
	}
	consumer := broker.Consume(
		harness.Binding{Exchange: "presence", Kind: "topic", Key: "#"},
		harness.Binding{Exchange: "chat_msg", Kind: "topic", Key: "#"},
		harness.Binding{Exchange: "groupchat_msg", Kind: "topic", Key: "#"},
	)
	b := newBackend(t, x, poolFor(t, broker, broker.Addr()), nil)
	seen := 0
	for _, step := range backendtest.Golden(t) {
		t.Run(step.Name, func(t *testing.T) {
			mustPublish(t, b, backendtest.Wanted(b.Wants, step.Events))
			all := consumer.Drain()
			var got []backendtest.RabbitMessage
			for _, d := range all[seen:] {
				got = append(got, backendtest.RabbitMessage{Exchange: d.Exchange, Key: d.RoutingKey, Payload: backendtest.JSON(t, string(d.Body))})
			}
			seen = len(all)
			anyOrder := cmpopts.SortSlices(func(a, b backendtest.RabbitMessage) bool { return fmt.Sprint(a) < fmt.Sprint(b) })
			if diff := cmp.Diff(step.Rabbit, got, anyOrder, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-MongooseIM +got):\n%s", diff)
			}
		})
	}
}

func TestProperties(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	for _, persistent := range []bool{true, false} {
		x := exchange()
		consumer := broker.Consume(harness.Binding{Exchange: x.Name, Kind: x.Type, Key: "user1@localhost.chat_msg_sent"})
		pool := poolFor(t, broker, broker.Addr())
		pool.Persistent = persistent
		b := newBackend(t, config.Rabbit{Chat: x}, pool, nil)
		e := backendtest.Message(1)
		mustPublish(t, b, []event.Event{e})
		d := consumer.Wait(1)[0]
		mode := uint8(amqp.Transient)
		if persistent {
			mode = amqp.Persistent
		}
		if d.DeliveryMode != mode || d.MessageId != e.ID || d.ContentType != "application/json" || d.AppId != "eventpusher" ||
			!d.Timestamp.Equal(e.Time) || len(d.Headers) != 0 {
			t.Errorf("persistent = %t: mode %d, id %q, type %q, app %q, time %v, headers %v",
				persistent, d.DeliveryMode, d.MessageId, d.ContentType, d.AppId, d.Timestamp, d.Headers)
		}
	}
}

// Only configured exchanges come to be (mod_event_pusher_rabbit_SUITE,
// only_presence_exchange_is_created_on_module_startup).
func TestOnlyConfiguredExchangesAreDeclared(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	x := &config.Exchange{Name: "presence-" + rand.Text(), Type: "topic", Durable: true}
	b := newBackend(t, config.Rabbit{Presence: x}, poolFor(t, broker, broker.Addr()), nil)
	mustPublish(t, b, []event.Event{{Kind: event.UserStatus, From: "a@localhost/r", User: "a@localhost", Online: true}})
	conn := broker.Dial()
	for _, tc := range []struct {
		name string
		want bool
	}{{x.Name, true}, {"chat-" + x.Name, false}} {
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if err := ch.ExchangeDeclarePassive(tc.name, "topic", true, false, false, false, nil); (err == nil) != tc.want {
			t.Errorf("exchange %s: %v, want it there: %t", tc.name, err, tc.want)
		}
	}
	chat := backendtest.Message(0)
	if b.Wants(&chat) {
		t.Error("a message is wanted without a section for messages")
	}
}

func TestUnroutableIsCounted(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	for _, confirms := range []bool{true, false} {
		for _, mandatory := range []bool{true, false} {
			t.Run(fmt.Sprintf("confirms %t mandatory %t", confirms, mandatory), func(t *testing.T) {
				var log lockedBuffer
				pool := poolFor(t, broker, broker.Addr())
				pool.ConfirmsEnabled, pool.Mandatory = confirms, mandatory
				x := exchange()
				b := newBackend(t, config.Rabbit{Chat: x}, pool, slog.New(slog.NewTextHandler(&log, nil)))
				mustPublish(t, b, backendtest.Messages(0, 20))
				// A round trip on the same channel follows the returns where no confirm does.
				consumer := broker.Consume(harness.Binding{Exchange: x.Name, Key: "user20.#"}, harness.Binding{Exchange: x.Name, Key: "#"})
				mustPublish(t, b, backendtest.Messages(20, 1))
				consumer.Wait(1)
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				want := uint64(0)
				if mandatory {
					want = 20
				}
				if got := b.Counts()["unroutable"]; got != want {
					t.Errorf("%d counted, want %d", got, want)
				}
				if n := strings.Count(log.String(), "no queue takes messages"); n != int(min(want, 1)) {
					t.Errorf("%d warnings:\n%s", n, log.String())
				}
			})
		}
	}
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestExchangeThatVanishedIsDeclaredAgain(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	x := exchange()
	pool := poolFor(t, broker, broker.Addr())
	pool.Workers = 1
	b := newBackend(t, config.Rabbit{Chat: x}, pool, nil)
	mustPublish(t, b, backendtest.Messages(0, 3))
	admin, err := broker.Dial().Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.ExchangeDelete(x.Name, false, false); err != nil {
		t.Fatal(err)
	}
	for i, err := range b.Publish(t.Context(), backendtest.Messages(3, 5)) {
		if backends.Reason(err) != "transient" || !strings.Contains(err.Error(), x.Name) {
			t.Errorf("event %d without the exchange: %v (%q), want a transient error that names it", i, err, backends.Reason(err))
		}
	}
	mustPublish(t, b, backendtest.Messages(3, 5))
	if err := admin.ExchangeDeclarePassive(x.Name, x.Type, x.Durable, false, false, false, nil); err != nil {
		t.Error(err)
	}
	if n := b.Counts()["connections_opened"]; n != 1 {
		t.Errorf("%d connections, want 1: only the channel is lost", n)
	}
}

func TestWhatTheOperatorMustMend(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	other := exchange()
	ch, err := broker.Dial().Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.ExchangeDeclare(other.Name, "fanout", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*config.RabbitPool, *config.Exchange)
		detail string
	}{
		{"wrong password", func(p *config.RabbitPool, _ *config.Exchange) { p.Password = "hunter2" }, `refuses the login of user "guest"`},
		{"unknown vhost", func(p *config.RabbitPool, _ *config.Exchange) { p.VirtualHost = "nowhere" }, `virtual host "nowhere"`},
		{"exchange of another type", func(_ *config.RabbitPool, x *config.Exchange) { x.Name = other.Name }, other.Name},
		{"exchange type unknown", func(_ *config.RabbitPool, x *config.Exchange) { x.Type = "x-nonsense" }, "x-nonsense"},
		{"exchange of the broker's own", func(_ *config.RabbitPool, x *config.Exchange) { x.Name = "amq.mine" }, "choose a name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pool, x := poolFor(t, broker, broker.Addr()), exchange()
			tc.change(&pool, x)
			b := newBackend(t, config.Rabbit{Chat: x}, pool, nil)
			for i, err := range b.Publish(t.Context(), backendtest.Messages(0, 2)) {
				if backends.Reason(err) != "paused" || !strings.Contains(err.Error(), tc.detail) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("event %d: %v (%q), want paused with %s", i, err, backends.Reason(err), tc.detail)
				}
			}
		})
	}
}

// failsInTime publishes to a broker that hangs.
func failsInTime(t *testing.T, b *rabbit.Backend, when string, batch []event.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for i, err := range b.Publish(ctx, batch) {
		if backends.Reason(err) != "timeout" {
			t.Errorf("%s, event %d: %v (%q), want a timeout", when, i, err, backends.Reason(err))
		}
	}
}

// untilPublished repeats the batch as long as its errors are transient.
func untilPublished(t *testing.T, b *rabbit.Backend, batch []event.Event) {
	t.Helper()
	for {
		failed := false
		for i, err := range b.Publish(t.Context(), batch) {
			switch backends.Reason(err) {
			case "":
			case "transient", "timeout":
				failed = true
			default:
				t.Fatalf("event %d: %v", i, err)
			}
		}
		if !failed {
			return
		}
	}
}

// The broker's own death: kill -9, hang, and the exchange gone with it.
func TestBrokerKilledPausedAndBack(t *testing.T) {
	broker := harness.RabbitMQ(t)
	x := exchange()
	consumer := broker.Consume(harness.Binding{Exchange: x.Name, Kind: x.Type, Key: "#"})
	b := newBackend(t, config.Rabbit{Chat: x}, poolFor(t, broker, broker.Addr()), nil)
	mustPublish(t, b, backendtest.Messages(0, 100))
	consumer.Wait(100)

	broker.Pause()
	large := backendtest.Messages(100, 200) // more than the socket buffers hold
	for i := range large {
		large[i].Body = strings.Repeat("x", 128<<10)
	}
	for _, tc := range []struct {
		name  string
		batch []event.Event
	}{
		{"waiting for confirms", backendtest.Messages(100, 100)},
		{"opening a channel", backendtest.Messages(100, 1)},
		{"connecting", backendtest.Messages(100, 1)},
	} {
		failsInTime(t, b, tc.name, tc.batch)
	}
	broker.Resume()
	untilPublished(t, b, backendtest.Messages(100, 100))

	broker.Pause()
	failsInTime(t, b, "writing", large)
	broker.Resume()
	untilPublished(t, b, large[:1])

	broker.Kill()
	for i, err := range b.Publish(t.Context(), backendtest.Messages(300, 10)) {
		if reason := backends.Reason(err); reason != "transient" {
			t.Errorf("event %d while the broker is dead: %v (%q)", i, err, reason)
		}
	}
	broker.Start()
	mustPublish(t, b, backendtest.Messages(300, 10)) // declares the exchange, which was not durable
	ch, err := broker.Dial().Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.ExchangeDeclarePassive(x.Name, x.Type, false, false, false, false, nil); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}
