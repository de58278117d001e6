package devices

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/route"
	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/internal/jid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t testing.TB, limit int) *store.DeviceLists {
	t.Helper()
	s, err := store.OpenDevices(filepath.Join(t.TempDir(), store.DevicesFile), limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// sender plays a provider: it notes what comes and answers as told.
type sender struct {
	mu     sync.Mutex
	got    []notify.Notification
	answer func(ctx context.Context, t notify.Target) error
}

func (s *sender) Send(ctx context.Context, t notify.Target, n notify.Notification) error {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		if err := answer(ctx, t); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, n)
	return nil
}

func (s *sender) answers(f func(context.Context, notify.Target) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

func (s *sender) bodies() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, n := range s.got {
		all = append(all, n.Body)
	}
	return all
}

// fixture is a Delivery to senders of every kind, and one device of each.
type fixture struct {
	*Delivery
	store           *store.DeviceLists
	apple, google   *sender
	iphone, android store.Credentials
	now             time.Time
}

func newFixture(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{store: newStore(t, 0), apple: &sender{}, google: &sender{}, now: time.Now()}
	o := Options{Content: notify.ContentBody, MaxAge: time.Hour, Burst: 3, Interval: 20 * time.Second, Apps: []App{{
		Name: "chat", senders: map[notify.Kind]notify.Sender{notify.APNs: f.apple, notify.FCM: f.google}, topics: []string{"org.example.chat"},
	}}}
	if change != nil {
		change(&o)
	}
	o.Routes = route.New(route.Options{Lanes: 64, Log: o.Log})
	f.Delivery = NewDelivery(o)
	f.Attach(f.store)
	f.Delivery.now = func() time.Time { return f.now }
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	f.iphone = f.register(t, notify.APNs, "c0ffee")
	f.android = f.register(t, notify.FCM, "token")
	return f
}

func (f *fixture) register(t testing.TB, kind notify.Kind, address string) store.Credentials {
	t.Helper()
	c, err := f.store.Put(t.Context(), store.Device{Owner: "bob@example.org", App: "chat", Target: notify.Target{Kind: kind, Address: config.Secret(address)}}, f.now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// message is one that says body, published at that moment.
func message(body string, at time.Time) *Message {
	m := &Message{EventID: "id of " + body, Time: at, Owner: "bob@example.org"}
	if body != "" {
		m.Summary = Summary{{Name: notify.KeySender, Value: "alice@example.org/desk"}, {Name: notify.KeyBody, Value: body}}
	}
	return m
}

func field(name, value string) notify.Field { return notify.Field{Name: name, Value: value} }

const bob = jid.JID("bob@example.org")
