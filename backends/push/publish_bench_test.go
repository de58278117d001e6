package push_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"eventpusher/backends/catalog"
	"eventpusher/backends/push"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// BenchmarkPublish has the lanes of the default configuration push messages for 5 000
// users, by the embedded store and over TLS, to a MongoosePush in the same process.
// cpu-us/push is the time of both sides.
func BenchmarkPublish(b *testing.B) {
	gateway := pushtest.StartMongoosePush(b)
	cfg, problems := config.Parse(fmt.Appendf(nil, `
[component]
name = "events.example.org"
secret = "secret"
[general]
hosts = ["example.org"]
[modules.mod_event_pusher.push]
virtual_pubsub_hosts = ["pubsub.@HOST@"]
[modules.mod_push_service_mongoosepush]
pool_name = "mongoose"
[outgoing_pools.http.mongoose.connection]
host = %q
tls.cacertfile = %q
`, gateway.URL, gateway.CAFile), nil, "")
	if cfg == nil {
		b.Fatal(problems)
	}
	built, err := catalog.Build(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		b.Fatal(err)
	}
	backend := built[0].(*push.Backend)
	defer backend.Close()
	kept, err := store.OpenRegistrations(filepath.Join(b.TempDir(), store.RegistrationsFile), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer kept.Close()
	// Without an outbox: what the backend has made comes back at once.
	backend.Attach(kept, nil, func(ctx context.Context, list []event.Event) error { return errors.Join(backend.Publish(ctx, list)...) })
	const users = 5000
	register(b, kept, users)
	// A destination is slow until it has answered once.
	if err := backend.Publish(b.Context(), []event.Event{message(0, users)})[0]; err != nil {
		b.Fatal(err)
	}

	limits := backend.Limits()
	var next atomic.Int64
	var lanes sync.WaitGroup
	began, used := time.Now(), processorTime(b)
	b.ResetTimer()
	for range limits.Lanes {
		lanes.Go(func() {
			batch := make([]event.Event, 0, limits.Batch)
			for {
				batch = batch[:0]
				for len(batch) < limits.Batch {
					i := next.Add(1)
					if i > int64(b.N) {
						break
					}
					batch = append(batch, message(i, users))
				}
				if len(batch) == 0 {
					return
				}
				for _, err := range backend.Publish(context.Background(), batch) {
					if err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	lanes.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "pushes/s")
	b.ReportMetric(float64((processorTime(b)-used).Microseconds())/float64(b.N), "cpu-us/push")
	if n := len(gateway.Requests()) - 1; n != b.N {
		b.Errorf("%d of %d arrived", n, b.N)
	}
}

func userOf(i, users int64) jid.JID { return jid.JID(fmt.Sprintf("user%d@example.org", i%users)) }

// message is one to a user who is offline.
func message(i, users int64) event.Event {
	return event.Event{
		ID: fmt.Sprintf("%032x", i), Kind: event.Chat, Type: "chat", Direction: event.Out, From: "alice@example.org/desk",
		User: userOf(i, users), To: userOf(i, users), Body: "OH, HAI!", HasBody: true, Class: event.Content,
		RecipientOffline: true, StanzaID: fmt.Sprint(i), Time: time.Now(), Dialect: "event-feed",
	}
}

func register(b *testing.B, kept store.Registrations, users int64) {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 256 { // which share writes to the disk
		all.Go(func() {
			for i := next.Add(1); i <= users; i = next.Add(1) {
				s := store.Service{PubSub: "pubsub.example.org", Node: "n", Options: []notify.Field{
					{Name: "service", Value: "fcm"}, {Name: "device_id", Value: fmt.Sprint("device-", i)},
				}}
				if err := kept.Enable(context.Background(), userOf(i, users), s); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
