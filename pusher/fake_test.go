package pusher_test

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// attempt is one event in one call of a fakeBackend.
type attempt struct {
	ID string
	At time.Duration // since the first call
}

// fakeBackend does what its function says and remembers everything.
type fakeBackend struct {
	name    string
	limits  backends.Limits
	wants   func(e *event.Event) bool
	publish func(ctx context.Context, batch []event.Event) []error // nil delivers all

	mu       sync.Mutex
	got      []event.Event
	attempts []attempt
	began    time.Time
}

func (b *fakeBackend) Name() string            { return b.name }
func (b *fakeBackend) Limits() backends.Limits { return b.limits }
func (b *fakeBackend) Close() error            { return nil }

func (b *fakeBackend) Wants(e *event.Event) bool { return b.wants == nil || b.wants(e) }

func (b *fakeBackend) Publish(ctx context.Context, batch []event.Event) []error {
	b.mu.Lock()
	if b.began.IsZero() {
		b.began = time.Now()
	}
	for i := range batch {
		b.attempts = append(b.attempts, attempt{batch[i].ID, time.Since(b.began)})
	}
	b.mu.Unlock()
	errs := make([]error, len(batch))
	if b.publish != nil {
		errs = b.publish(ctx, batch)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range errs {
		if i < len(batch) && errs[i] == nil {
			b.got = append(b.got, batch[i])
		}
	}
	return errs
}

func (b *fakeBackend) delivered() []event.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]event.Event(nil), b.got...)
}

func (b *fakeBackend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.got)
}

func (b *fakeBackend) ids() []string {
	var ids []string
	for _, e := range b.delivered() {
		ids = append(ids, e.ID)
	}
	return ids
}

func (b *fakeBackend) tried() []attempt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]attempt(nil), b.attempts...)
}

// pauses returns the pauses between the attempts for one event.
func (b *fakeBackend) pauses(id string) []time.Duration {
	var out []time.Duration
	last := time.Duration(-1)
	for _, a := range b.tried() {
		if a.ID != id {
			continue
		}
		if last >= 0 {
			out = append(out, a.At-last)
		}
		last = a.At
	}
	return out
}

// start runs a Pusher for as long as the test lasts, with an outbox of its own if the
// options have none.
func start(t *testing.T, o pusher.Options) *pusher.Pusher {
	t.Helper()
	if o.Outbox == nil {
		o.Outbox, _, _ = openOutbox(t, t.TempDir())
	}
	p, err := pusher.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return p
}

// pass lets time go by in a bubble, and what is due until then happen: what other
// goroutines have written may be read after it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var when = time.Date(2026, 11, 22, 3, 4, 5, 678901000, time.UTC)

func chat(body string) event.Event {
	return event.Event{
		ID: "0123456789abcdef0123456789abcdef", Kind: event.Chat, Type: "chat", Direction: event.In,
		From: "alice@localhost/res1", To: "bob@localhost/desk", User: "alice@localhost",
		Body: body, HasBody: true, Class: event.Content, StanzaID: "m1", Time: when, SessionCount: 1,
	}
}

func status(online bool, sessions int) event.Event {
	return event.Event{
		ID: "fedcba9876543210fedcba9876543210", Kind: event.UserStatus, Type: "online", Online: online,
		From: "alice@localhost/res1", User: "alice@localhost", SessionCount: sessions, Time: when,
	}
}

func compile(t *testing.T, cfg ...config.Filter) []filter.Filter {
	t.Helper()
	filters, problems := filter.Compile(cfg)
	for _, p := range problems {
		t.Fatalf("%s: %s (%s)", p.Path, p.Text, p.Remedy)
	}
	return filters
}

// of returns an event of the conversation between alice and a peer.
func of(peer, id string) event.Event {
	e := chat("Hi")
	e.ID, e.To = id, jid.JID(peer+"@localhost")
	return e
}

// by is a message that a user sends.
func by(user, id string) event.Event {
	e := chat("Hi")
	e.ID, e.From, e.User = id, jid.JID(user+"@localhost/res1"), jid.JID(user+"@localhost")
	return e
}

func letters(t *testing.T, d outbox.DeadLetters) []outbox.DeadLetter {
	t.Helper()
	all, err := d.List(outbox.LetterFilter{})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// every returns n errors that are all err.
func every(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// value returns the value of a metric written name{label=value,…}, after which
// _count asks for the observations of a histogram and _is_there for 1 or 0.
func value(t *testing.T, reg *prometheus.Registry, metric string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			sort.Strings(labels)
			rest, ok := strings.CutPrefix(metric, fmt.Sprintf("%s{%s}", f.GetName(), strings.Join(labels, ",")))
			if !ok {
				continue
			}
			switch {
			case rest == "_is_there":
				return 1
			case rest == "_count":
				return float64(m.GetHistogram().GetSampleCount())
			case m.GetCounter() != nil:
				return m.GetCounter().GetValue()
			}
			return m.GetGauge().GetValue()
		}
	}
	if strings.HasSuffix(metric, "_is_there") {
		return 0
	}
	t.Fatalf("no metric %s", metric)
	return 0
}
