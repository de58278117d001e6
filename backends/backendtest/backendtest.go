// Package backendtest holds what the tests of all backends share: the suite that
// every backend passes, the events of the golden session, and a proxy that
// stands for a service in trouble. Nothing but tests may import it.
package backendtest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// Service is a running service and the backend for it.
type Service struct {
	// Address is its host:port. The suite connects the backend through a Proxy.
	Address string
	// New builds the backend for the service at another address.
	New func(address string, log *slog.Logger) (backends.Backend, error)
	// Deliveries returns all that has arrived, in order. An event for which Publish
	// has returned nil is among it.
	Deliveries func() []Delivery
	// Refuse makes the service, or the backend in its name, refuse e for good; it
	// may change e to that end. It returns the backends.Reason to expect.
	Refuse func(e *event.Event) (reason string)
	// Secrets must not occur in any error or log line.
	Secrets []string
}

// Delivery is an event as the service got it.
type Delivery struct {
	ID       string
	Body     string
	Metadata map[string]string
}

// guard is the patience of the suite: only a broken backend ever needs it all.
const guard = 60 * time.Second

// Message returns the chat event number n, sent by the n-th user: all have
// different keys, so any number of them may stand in one batch.
func Message(n int) event.Event {
	from := jid.JID(fmt.Sprintf("user%d@localhost/res", n))
	return event.Event{
		ID:   fmt.Sprintf("%032x", n+1),
		Kind: event.Chat, Type: "chat", Direction: event.In,
		From: from, To: "bob@localhost", User: from.Bare(),
		Body: fmt.Sprintf("%s number %d <&>\"\\ żółw 😀", bodyMark, n), HasBody: true, Class: event.Content,
		Time:     time.Date(2026, 11, 22, 12, 0, n%60, 0, time.UTC),
		Metadata: event.Metadata{"timestamp": int64(1_700_000_000_000_000 + n), "tenant": "blue & green", "vip": n%2 == 0},
	}
}

// bodyMark is in every body, to find bodies where they do not belong.
const bodyMark = "confidential text"

// Messages returns events number first to first+n-1.
func Messages(first, n int) []event.Event {
	batch := make([]event.Event, n)
	for i := range batch {
		batch[i] = Message(first + i)
	}
	return batch
}

// Run checks that a backend keeps the contract of backends.Backend. start is
// called for each part and must return a service that has got nothing yet.
func Run(t *testing.T, start func(t *testing.T) Service) {
	for _, part := range []struct {
		name string
		run  func(*fixture)
	}{
		{"limits are constant and sane", testLimits},
		{"each event once, with its id and metadata", testDelivery},
		{"a verdict for each event", testVerdicts},
		{"lanes in parallel", testLanes},
		{"cancelled before the call", testCancelled},
		{"cancelled while the service hangs", testHang},
		{"service down and back", testOutage},
	} {
		t.Run(part.name, func(t *testing.T) {
			service := start(t)
			leaks := goleak.IgnoreCurrent()
			f := newFixture(t, service)
			part.run(f)
			f.finish()
			goleak.VerifyNone(t, leaks)
		})
	}
}

// fixture is one backend on its way to a service.
type fixture struct {
	*testing.T
	Service
	proxy   *Proxy
	backend backends.Backend

	mu   sync.Mutex
	said bytes.Buffer // logs and errors
}

// Write takes what the backend logs.
func (f *fixture) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.said.Write(p)
}

func newFixture(t *testing.T, service Service) *fixture {
	f := &fixture{T: t, Service: service, proxy: StartProxy(t, service.Address)}
	log := slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if f.backend, err = service.New(f.proxy.Address(), log); err != nil {
		t.Fatal(err)
	}
	return f
}

// finish closes the backend and looks for secrets in what it has said.
func (f *fixture) finish() {
	f.Helper()
	if err := f.backend.Close(); err != nil {
		f.Errorf("Close: %v", err)
	}
	f.proxy.Close()
	f.mu.Lock()
	said := f.said.String()
	f.mu.Unlock()
	for _, secret := range append(f.Secrets, bodyMark) {
		if strings.Contains(said, secret) {
			f.Errorf("%q is in an error or log line:\n%s", secret, said)
		}
	}
}

// publish calls Publish under the suite's guard and checks the form of the answer.
func (f *fixture) publish(ctx context.Context, batch []event.Event) []error {
	f.Helper()
	answered := make(chan []error, 1)
	go func() { answered <- f.backend.Publish(ctx, batch) }()
	select {
	case errs := <-answered:
		if len(errs) != len(batch) {
			f.Fatalf("%d verdicts for %d events", len(errs), len(batch))
		}
		for _, err := range errs {
			if err != nil {
				fmt.Fprintln(f, err)
			}
		}
		return errs
	case <-time.After(guard):
		f.Fatalf("Publish has not returned within %v", guard)
		return nil
	}
}

// mustPublish publishes a batch of which nothing may fail.
func (f *fixture) mustPublish(batch []event.Event) {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), guard)
	defer cancel()
	for i, err := range f.publish(ctx, batch) {
		if err != nil {
			f.Fatalf("event %d: %v", i, err)
		}
	}
}
