package http_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/http"
	"eventpusher/config"
	"eventpusher/event"
)

// batchReceiver takes JSON arrays of events. judge may be nil; it gives another status than 200.
type batchReceiver struct {
	server *httptest.Server
	judge  func(events []event.Event) int

	mu       sync.Mutex
	requests int
	taken    [][]event.Event
	header   nethttp.Header // of the latest
	body     []byte
}

func startBatchReceiver(t *testing.T, judge func([]event.Event) int) *batchReceiver {
	r := &batchReceiver{judge: judge}
	r.server = httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, req *nethttp.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		var events []event.Event
		if err := json.Unmarshal(body, &events); err != nil {
			t.Errorf("%v: %s", err, body)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests++
		r.header, r.body = req.Header, body
		if r.judge != nil {
			if status := r.judge(events); status != nethttp.StatusOK {
				w.WriteHeader(status)
				return
			}
		}
		r.taken = append(r.taken, events)
	}))
	t.Cleanup(r.server.Close)
	return r
}

// ids are those of all events that were taken.
func (r *batchReceiver) ids() (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, events := range r.taken {
		for _, e := range events {
			ids = append(ids, e.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func (r *batchReceiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// newBatches returns a backend that posts batches to target.
func newBatches(t *testing.T, target, format string, o config.HTTPDestination) *http.Backend {
	t.Helper()
	b, err := buildBatches(target, format, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func buildBatches(target, format string, o config.HTTPDestination) (*http.Backend, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 1 << 20
	}
	if o.BatchLinger == 0 {
		o.BatchLinger = time.Millisecond
	}
	return http.New(http.Options{Name: "crm", URL: u, Workers: 4, Timeout: time.Minute, Choice: config.Choice{Format: format}, HTTP: o})
}

func TestBatchConformance(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backendtest.Service {
		refused := make(map[string]bool)
		r := startBatchReceiver(t, func(events []event.Event) int {
			if slices.ContainsFunc(events, func(e event.Event) bool { return refused[e.ID] }) {
				return nethttp.StatusUnprocessableEntity
			}
			return nethttp.StatusOK
		})
		return backendtest.Service{
			Address: r.server.Listener.Addr().String(),
			New: func(address string, _ *slog.Logger) (backends.Backend, error) {
				return buildBatches("http://"+address, config.FormatJSON, config.HTTPDestination{BatchSize: 3})
			},
			Deliveries: func() (all []backendtest.Delivery) {
				r.mu.Lock()
				defer r.mu.Unlock()
				for _, e := range slices.Concat(r.taken...) {
					d := backendtest.Delivery{ID: e.ID, Body: e.Body, Metadata: map[string]string{}}
					for key, value := range e.Metadata {
						if n, isNumber := value.(float64); isNumber {
							value = int64(n)
						}
						d.Metadata[key] = event.Metadata{key: value}.Text(key)
					}
					all = append(all, d)
				}
				return all
			},
			Refuse: func(e *event.Event) string {
				refused[e.ID] = true
				return "permanent"
			},
		}
	})
}

// TestBatchOfSeveralLanes: single events of several lanes share a request; its signature is over
// what arrives, and its id that of the same events.
func TestBatchOfSeveralLanes(t *testing.T) {
	key := config.SigningSecret + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	r := startBatchReceiver(t, nil)
	b := newBatches(t, r.server.URL, config.FormatJSON, config.HTTPDestination{
		BatchSize: 20, BatchLinger: time.Hour, SigningKeys: []config.SigningKey{{Key: config.Secret(key)}},
	})
	if l := b.Limits(); l.Lanes < 20 || l.Lanes*l.Batch < 4*20 {
		t.Errorf("%+v", l)
	}
	var lanes sync.WaitGroup
	for _, e := range backendtest.Messages(0, 20) {
		lanes.Go(func() {
			if err := b.Publish(t.Context(), []event.Event{e})[0]; err != nil {
				t.Error(err)
			}
		})
	}
	lanes.Wait()
	if r.count() != 1 || len(r.ids()) != 20 {
		t.Errorf("%d requests, %d events", r.count(), len(r.ids()))
	}
	verifier, err := standardwebhooks.NewWebhook(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify(r.body, r.header); err != nil {
		t.Error(err)
	}
	if r.header.Get("Content-Type") != "application/json" || r.header.Get("webhook-id") == r.taken[0][0].ID {
		t.Errorf("%v", r.header)
	}
}

// TestBatchID: the same events have the same id, one alone has its own.
func TestBatchID(t *testing.T) {
	r := startBatchReceiver(t, nil)
	b := newBatches(t, r.server.URL, config.FormatJSON, config.HTTPDestination{BatchSize: 3})
	var ids []string
	for _, n := range []int{1, 3, 3, 2} {
		for _, err := range b.Publish(t.Context(), backendtest.Messages(0, n)) {
			if err != nil {
				t.Error(err)
			}
		}
		ids = append(ids, r.header.Get("webhook-id"))
	}
	if ids[0] != backendtest.Message(0).ID || ids[1] != ids[2] || ids[1] == ids[3] || ids[1] == ids[0] || len(ids[1]) != 32 {
		t.Errorf("%q", ids)
	}
}

// TestBatchOfCloudEvents is read by the official library.
func TestBatchOfCloudEvents(t *testing.T) {
	var mu sync.Mutex
	var got []cloudevents.Event
	server := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, req *nethttp.Request) {
		mu.Lock()
		defer mu.Unlock()
		var err error
		if got, err = cloudevents.NewEventsFromHTTPRequest(req); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	b := newBatches(t, server.URL, config.FormatCloudEvents, config.HTTPDestination{BatchSize: 3})
	batch := backendtest.Messages(0, 3)
	for _, err := range b.Publish(t.Context(), batch) {
		if err != nil {
			t.Error(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	var ids []string
	for i := range got {
		ids = append(ids, got[i].ID())
	}
	if diff := cmp.Diff([]string{batch[0].ID, batch[1].ID, batch[2].ID}, ids); diff != "" {
		t.Error(diff)
	}
}

// TestBatchBytes: a batch has no more bytes than allowed, and a larger event is alone.
func TestBatchBytes(t *testing.T) {
	const most = 4 << 10
	r := startBatchReceiver(t, nil)
	b := newBatches(t, r.server.URL, config.FormatJSON, config.HTTPDestination{BatchSize: 100, BatchBytes: most})
	batch := backendtest.Messages(0, 20)
	batch[7].Body = strings.Repeat("x", 2*most)
	for _, err := range b.Publish(t.Context(), batch) {
		if err != nil {
			t.Error(err)
		}
	}
	if len(r.ids()) != len(batch) || r.count() < 4 {
		t.Errorf("%d events in %d requests", len(r.ids()), r.count())
	}
	for _, events := range r.taken {
		whole, err := json.Marshal(events)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) > 1 && (len(whole) > most+most/10 || slices.ContainsFunc(events, func(e event.Event) bool { return e.ID == batch[7].ID })) {
			t.Errorf("%d events in about %d bytes", len(events), len(whole))
		}
	}
}

// TestRefusedBatch: whatever a receiver says of one event, the others are delivered, in few
// requests; and one that refuses everything is not asked for each.
func TestRefusedBatch(t *testing.T) {
	const n = 64
	bad := func(e event.Event) bool { return strings.Contains(e.Body, "evil") }
	for _, tc := range []struct {
		name   string
		status int
		evil   []int // events with a text that is refused; all of one sender
		reason string
		most   int // requests
	}{
		{"not this event", 422, []int{17}, "permanent", 1 + 2*6},
		{"too large", 413, []int{0}, "too_large", 1 + 2*6},
		{"all but a few of one sender", 400, []int{3, 30, 60}, "permanent", 1 + 3*2*6},
		{"a firewall", 403, []int{1, 2, 3, 40}, "paused", 1 + 4*2*6},
		{"a receiver that fails over it", 500, []int{5}, "transient", 1 + 2*6},
		{"every event has to be proved", 415, nil, "permanent", n + 13},
		{"nothing there", 404, nil, "paused", 1 + 6 + 5},
		{"failing", 500, nil, "transient", 1 + 6 + 5},
		{"down", 503, nil, "transient", 1},
		{"wait", 429, nil, "transient", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := startBatchReceiver(t, func(events []event.Event) int {
				if tc.evil == nil || slices.ContainsFunc(events, bad) {
					return tc.status
				}
				return nethttp.StatusOK
			})
			b := newBatches(t, r.server.URL, config.FormatJSON, config.HTTPDestination{BatchSize: n})
			batch := backendtest.Messages(0, n)
			for i, at := range tc.evil {
				batch[at].Body, batch[at].From, batch[at].User = "evil", "mallory@localhost/r", "mallory@localhost"
				batch[at].To = batch[i].From.Bare() // in different conversations
			}
			delivered := 0
			for i, err := range b.Publish(t.Context(), batch) {
				want := tc.reason
				if tc.evil != nil && !bad(batch[i]) {
					want = ""
					delivered++
				}
				if got := backends.Reason(err); got != want {
					t.Errorf("event %d: %v (%q), want %q", i, err, got, want)
				}
			}
			if r.count() > tc.most || len(r.ids()) != delivered {
				t.Errorf("%d requests, want %d at most; %d events taken, want %d", r.count(), tc.most, len(r.ids()), delivered)
			}
		})
	}
}

// TestBatchesByEpoch: the header eventpusher-epoch is true for each event of a batch.
func TestBatchesByEpoch(t *testing.T) {
	r := startBatchReceiver(t, nil)
	b := newBatches(t, r.server.URL, config.FormatJSON, config.HTTPDestination{BatchSize: 2, BatchLinger: time.Hour})
	var lanes sync.WaitGroup
	for n, e := range backendtest.Messages(0, 4) {
		lanes.Go(func() {
			ctx := backends.WithEpoch(t.Context(), uint64(1+n%2))
			if err := b.Publish(ctx, []event.Event{e})[0]; err != nil {
				t.Error(err)
			}
		})
	}
	lanes.Wait()
	for _, events := range r.taken {
		var ids []string
		for _, e := range events {
			ids = append(ids, e.ID[len(e.ID)-1:])
		}
		if slices.Sort(ids); fmt.Sprint(ids) != "[1 3]" && fmt.Sprint(ids) != "[2 4]" {
			t.Errorf("%v share a request", ids)
		}
	}
}

func TestBatchesOfOtherForms(t *testing.T) {
	if _, err := buildBatches("http://localhost", config.FormatCloudEventsBinary, config.HTTPDestination{BatchSize: 2}); err == nil {
		t.Error("the format is taken")
	}
}
