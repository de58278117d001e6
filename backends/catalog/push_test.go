package catalog_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/catalog"
	"eventpusher/backends/push"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/event"
)

// attach attaches a backend whose own events come back at once.
func attach(b *push.Backend, kept store.Registrations) {
	b.Attach(kept, nil, func(ctx context.Context, list []event.Event) error { return errors.Join(b.Publish(ctx, list)...) })
}

// TestLackingForMongoosePush: a registration without what MongoosePush needs is not brought to
// it, and explained as such.
func TestLackingForMongoosePush(t *testing.T) {
	gateway := pushtest.StartMongoosePush(t)
	cfg := &config.Config{
		Pusher: config.Modules{
			Push:         &config.Push{Plugin: "defaults", Content: "body", VirtualPubsubHosts: []string{"push.@HOST@"}, MaxAge: time.Hour},
			MongoosePush: &config.MongoosePush{PoolName: "p"},
		},
		Pools: config.Pools{HTTP: map[string]config.HTTPPool{"p": {Host: gateway.URL, PathPrefix: "/", TLS: &config.TLS{CACertFile: gateway.CAFile}}}},
	}
	built, err := catalog.Build(cfg, discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	backend := built[0].(*push.Backend)
	kept, err := store.OpenRegistrations(filepath.Join(t.TempDir(), store.RegistrationsFile), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	defer backend.Close()
	attach(backend, kept)
	want := map[string][]string{"neither": {"device_id", "service"}, "device": {"service"}, "empty": {"device_id"}, "both": nil}
	for node, options := range map[string][]notify.Field{
		"neither": nil,
		"device":  {{Name: "device_id", Value: "d"}},
		"empty":   {{Name: "device_id"}, {Name: "service", Value: "fcm"}},
		"both":    {{Name: "device_id", Value: "d"}, {Name: "service", Value: "fcm"}},
	} {
		if err := kept.Enable(t.Context(), "bob@example.org", store.Service{PubSub: "push.example.org", Node: node, Options: options}); err != nil {
			t.Fatal(err)
		}
	}
	err = backend.Publish(t.Context(), []event.Event{{
		ID: "1", Kind: event.Stored, Type: "chat", From: "alice@example.org/x", To: "bob@example.org", User: "bob@example.org",
		Body: "hi", HasBody: true, RecipientOffline: true, Time: time.Now(), StanzaID: "s", Dialect: "event-feed",
	}})[0]
	if diff := cmp.Diff(map[string]uint64{"incomplete": 3, "queued": 1, "pushed": 1}, backend.Counts()); diff != "" || err != nil || len(gateway.Requests()) != 1 {
		t.Errorf("%v, %d requests\n%s", err, len(gateway.Requests()), diff)
	}
	e, err := backend.Explain(t.Context(), "bob@example.org")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string][]string)
	for _, r := range e.Registrations {
		got[r.Node] = r.Lacks
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestContentAtMongoosePush is what reaches MongoosePush in each content mode: it takes no
// alert without a title and a text.
func TestContentAtMongoosePush(t *testing.T) {
	for content, want := range map[string]string{
		"body":   `{"service":"fcm","alert":{"title":"alice@example.org","tag":"alice@example.org","body":"hi","badge":1}}`,
		"sender": `{"service":"fcm","alert":{"title":"alice@example.org","tag":"alice@example.org","body":"New message","badge":1}}`,
		"none":   `{"service":"fcm","alert":{"title":"New message","tag":"New message","body":"New message","badge":1}}`,
	} {
		t.Run(content, func(t *testing.T) {
			gateway := pushtest.StartMongoosePush(t)
			cfg := &config.Config{
				Pusher: config.Modules{
					Push:         &config.Push{Plugin: "defaults", Content: content, VirtualPubsubHosts: []string{"Push.@HOST@"}, MaxAge: time.Hour},
					MongoosePush: &config.MongoosePush{PoolName: "p"},
				},
				Pools: config.Pools{HTTP: map[string]config.HTTPPool{"p": {Host: gateway.URL, PathPrefix: "/", TLS: &config.TLS{CACertFile: gateway.CAFile}}}},
			}
			cfg.Component.Name = "events.example.org"
			built, err := catalog.Build(cfg, discard, nil)
			if err != nil {
				t.Fatal(err)
			}
			backend := built[0].(*push.Backend)
			kept, err := store.OpenRegistrations(filepath.Join(t.TempDir(), store.RegistrationsFile), 0, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer kept.Close()
			defer backend.Close()
			attach(backend, kept)
			device := store.Service{PubSub: "push.example.org", Node: "n", Options: []notify.Field{{Name: "service", Value: "fcm"}, {Name: "device_id", Value: "d"}}}
			if err := kept.Enable(t.Context(), "bob@example.org", device); err != nil {
				t.Fatal(err)
			}
			err = backend.Publish(t.Context(), []event.Event{{
				ID: "1", Kind: event.Stored, Type: "chat", From: "alice@example.org/x", To: "bob@example.org", User: "bob@example.org",
				Body: "hi", HasBody: true, RecipientOffline: true, Time: time.Now(), StanzaID: "s", Dialect: "event-feed",
			}})[0]
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range gateway.Requests() {
				got = append(got, r.DeviceID+" "+strings.TrimSpace(r.Body))
			}
			if diff := cmp.Diff([]string{"d " + want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, backend.Counts())
			}
		})
	}
}
