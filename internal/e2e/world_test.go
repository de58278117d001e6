package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/harness"
)

// limit bounds every wait; it only matters when something is broken.
const limit = harness.WaitLimit

// await polls until done says so.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	if !poll(limit, done) {
		t.Fatalf("waited %v for %s", limit, what)
	}
}

// poll asks again and again until done, at most for so long. It pauses longer than an
// answer takes: some ask every service for all that it has, which the program and the
// servers have to share the processors with.
func poll(limit time.Duration, done func() bool) bool {
	for deadline := time.Now().Add(limit); ; {
		began := time.Now()
		if done() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(max(10*time.Millisecond, 2*time.Since(began)))
	}
}

// world is eventpusher, attached to a server and publishing to all services.
type world struct {
	t        *testing.T
	broker   *harness.Broker
	consumer *harness.Consumer
	sns      *harness.SNSEmulator
	sink     *harness.Sink
	env      []string // overrides of the configuration
	admin    string   // base URL of the admin listener
	log      *processLog

	seen  counts // how much of each service has been looked at
	marks int
}

type counts struct{ rabbit, presence, pm, muc, http int }

const (
	presenceTopic = "user_presence_updated"
	pmTopic       = "user_message_sent"
	mucTopic      = "user_messagegroup_sent"
)

// newWorld starts the program with a MongooseIM-style configuration against the
// component port at address, and waits until it is ready; component is put into
// [component].
func newWorld(t *testing.T, address, component string) *world {
	t.Helper()
	w := prepareWorld(t)
	w.start(address, component)
	await(t, "readiness", w.ready)
	return w
}

// prepareWorld starts the services that events go to. Each world has exchanges of
// its own, so that worlds can share a broker.
func prepareWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, broker: harness.SharedRabbitMQ(t), sns: harness.SNS(t), sink: harness.HTTPSink(t)}
	for _, topic := range []string{presenceTopic, pmTopic, mucTopic} {
		w.sns.CreateTopic(topic)
	}
	var bindings []harness.Binding
	for _, kind := range []string{"presence", "chat_msg", "groupchat_msg"} {
		bindings = append(bindings, harness.Binding{Exchange: w.exchange(kind), Kind: "topic", Key: "#"})
	}
	w.consumer = w.broker.Consume(bindings...)
	return w
}

func (w *world) exchange(kind string) string {
	return strings.ToLower(strings.NewReplacer("/", "-", " ", "-").Replace(w.t.Name())) + "-" + kind
}

// configuration is a MongooseIM-style one for the component port at address;
// component is put into [component].
func (w *world) configuration(address, component string) string {
	return fmt.Sprintf(`
[component]
address = %q
name = "events.localhost"
secret = "secret"
%s

[general]
hosts = ["localhost"]

[admin]
listen = "127.0.0.1:0"

[modules.mod_event_pusher.sns]
presence_updates_topic = %q
pm_messages_topic = %q
muc_messages_topic = %q
sns_host = %q
region = %q
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = "KEY"
account_id = %q

[[modules.mod_event_pusher.http.handlers]]
path = "/notifications"

[modules.mod_event_pusher.rabbit]
presence_exchange.name = %q
chat_msg_exchange.name = %q
groupchat_msg_exchange.name = %q

[outgoing_pools.http.http_pool.connection]
host = %q
path_prefix = "/webservice"

[outgoing_pools.rabbit.event_pusher.connection]
host = %q
port = %d
`, address, component, presenceTopic, pmTopic, mucTopic, w.sns.Endpoint(), w.sns.Region, w.sns.AccountID(),
		w.exchange("presence"), w.exchange("chat_msg"), w.exchange("groupchat_msg"), w.sink.URL(), w.broker.Host, w.broker.Port)
}

// start runs the program until the test ends.
func (w *world) start(address, component string) {
	w.t.Helper()
	w.run(w.configuration(address, component) + fmt.Sprintf("[outbox]\npath = %q\n", w.t.TempDir()))
}

// run runs the program with that configuration until stop is called, or the test ends.
func (w *world) run(toml string) (stop func()) {
	w.t.Helper()
	cfg, problems := config.Parse([]byte(toml), w.env, w.t.TempDir())
	if cfg == nil {
		w.t.Fatalf("configuration: %v", problems)
	}
	w.log = &processLog{to: testLog{w.t}}
	a, err := app.New(cfg, app.Options{Log: slog.New(slog.NewTextHandler(w.log, nil)), Version: "test"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.admin = "http://" + a.AdminAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("stop: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// testLog writes the program's log into the test's.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (w *world) ready() bool {
	status, _ := w.get("/readyz")
	return status == http.StatusOK
}

// get asks the admin listener.
func (w *world) get(path string) (status int, body string) {
	w.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}, Timeout: limit}
	resp, err := client.Get(w.admin + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// news returns what has arrived since the last call, as lines of the golden file.
func (w *world) news() []string {
	w.t.Helper()
	var lines []string
	deliveries := w.consumer.All()
	for _, d := range deliveries[w.seen.rabbit:] {
		kind := d.Exchange[strings.LastIndexByte(d.Exchange, '-')+1:]
		lines = append(lines, rabbitLine(w.t, kind, d.RoutingKey, d.Body))
		if d.MessageId == "" || d.DeliveryMode != 2 {
			w.t.Errorf("AMQP message without message_id or not persistent: %+v", d)
		}
	}
	w.seen.rabbit = len(deliveries)
	for _, topic := range []struct {
		name string
		seen *int
	}{{presenceTopic, &w.seen.presence}, {pmTopic, &w.seen.pm}, {mucTopic, &w.seen.muc}} {
		messages := w.sns.Messages(topic.name)
		for _, m := range messages[*topic.seen:] {
			lines = append(lines, snsLine(w.t, topic.name, m.Message))
		}
		*topic.seen = len(messages)
	}
	requests := w.sink.Requests()
	for _, r := range requests[w.seen.http:] {
		if r.Path != "/webservice/notifications" {
			w.t.Errorf("POST to %s", r.Path)
		}
		lines = append(lines, httpLine(w.t, r.Form))
	}
	w.seen.http = len(requests)
	return lines
}

// collect waits for the lines that are wanted, then for a marked message that
// mark sends behind them, and returns everything else that arrived, sorted.
// The mark shows that the way is empty: nothing wanted is waited for in vain,
// and what came too much is seen here or at the latest in the next step.
func (w *world) collect(want []string, mark func(text string)) []string {
	w.t.Helper()
	var got []string
	wanted := slices.Clone(want)
	arrived := func() bool {
		got = append(got, w.news()...)
		left := slices.Clone(wanted)
		for _, line := range got {
			if i := slices.Index(left, line); i >= 0 {
				left = slices.Delete(left, i, i+1)
			}
		}
		return len(left) == 0
	}
	w.patiently(arrived)
	w.marks++
	text := fmt.Sprintf("MARK %d", w.marks)
	mark(text)
	// A marked message arrives four times: sent and received at RabbitMQ, once at
	// SNS and once by HTTP.
	var rest []string
	await(w.t, text+" at all services", func() bool {
		got = append(got, w.news()...)
		rest = slices.DeleteFunc(slices.Clone(got), func(line string) bool { return strings.Contains(line, text) })
		return len(got)-len(rest) == 4
	})
	slices.Sort(rest)
	return rest
}

// patiently polls until done or the limit; the comparison that follows says what
// is missing.
func (w *world) patiently(done func() bool) { poll(limit/2, done) }
