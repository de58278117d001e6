//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/notify"
	"eventpusher/internal/harness"
	"eventpusher/internal/natsrpc"
)

func TestRegistrationsInNATS(t *testing.T) {
	nats := harness.NATS(t, harness.NATSOptions{})
	ctx := context.Background()
	n := 0
	open := func(t *testing.T) *RegistrationLists {
		t.Helper()
		b, err := natsrpc.OpenBucket(natsrpc.Options{URL: nats.URL(), Prefix: fmt.Sprint("T", n), Replicas: 1, Log: slog.New(slog.DiscardHandler)}, "push")
		if err != nil {
			t.Fatal(err)
		}
		s := RegistrationsIn(NATS{Bucket: b}, testLimit, slog.New(slog.DiscardHandler))
		t.Cleanup(func() { s.Close() })
		return s
	}
	t.Run("as every store", func(t *testing.T) {
		registrationSuite(t, func(t *testing.T) Registrations { n++; return open(t) })
	})
	t.Run("too large for a message", func(t *testing.T) {
		n++
		s := open(t)
		long := notify.Field{Name: "x", Value: strings.Repeat("y", 700<<10)}
		if err := s.Enable(ctx, "alice@x", Service{PubSub: "a.example", Node: "1", Options: []notify.Field{long}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Enable(ctx, "alice@x", Service{PubSub: "a.example", Node: "2", Options: []notify.Field{long}}); !errors.Is(err, ErrTooMany) {
			t.Errorf("error: %v", err)
		}
		if list, err := s.Services(ctx, "alice@x"); err != nil || len(list) != 1 {
			t.Errorf("%d services, %v", len(list), err)
		}
	})
	t.Run("shared, and kept over a restart of the server", func(t *testing.T) {
		n++
		one, two := open(t), open(t)
		want := Service{PubSub: "a.example", Node: "1", Options: []notify.Field{{Name: "x", Value: "y"}}}
		if err := one.Enable(ctx, "alice@x", want); err != nil {
			t.Fatal(err)
		}
		nats.Kill()
		if _, err := two.Services(ctx, "alice@x"); err == nil {
			t.Error("no error while NATS is away")
		}
		nats.Start()
		for tick := time.Tick(10 * time.Millisecond); ; <-tick {
			got, err := two.Services(ctx, "alice@x")
			if err != nil {
				continue // it is connecting
			}
			if diff := cmp.Diff([]Service{want}, got); diff != "" {
				t.Error(diff)
			}
			return
		}
	})
}
