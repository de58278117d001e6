package shorten_test

import (
	"context"
	"errors"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/http"
	"eventpusher/backends/shorten"
	"eventpusher/config"
	"eventpusher/event"
)

// narrow takes events whose body, with quotes escaped, and packet have no more than limit bytes
// beside overhead.
type narrow struct {
	limit, overhead int
	tells           bool // what the limit is
	got             []event.Event
	calls           int
}

func (*narrow) Name() string            { return "narrow" }
func (*narrow) Wants(*event.Event) bool { return true }
func (*narrow) Limits() backends.Limits { return backends.Limits{Lanes: 1, Batch: 10} }
func (*narrow) Close() error            { return nil }

func (n *narrow) Publish(_ context.Context, batch []event.Event) []error {
	n.calls++
	errs := make([]error, len(batch))
	for i, e := range batch {
		size := n.overhead + len(e.Packet) + len(strings.ReplaceAll(e.Body, `"`, `\"`))
		switch {
		case size <= n.limit:
			n.got = append(n.got, e)
		case n.tells:
			errs[i] = backends.Permanent(&backends.TooLargeError{Size: size, Limit: n.limit})
		default:
			errs[i] = backends.Permanent(backends.ErrTooLarge)
		}
	}
	return errs
}

func TestShorten(t *testing.T) {
	for name, tc := range map[string]struct {
		body, packet string
		tells        bool
		least, most  int // bytes of the body that are left
		calls        int
	}{
		"fits":                         {strings.Repeat("x", 900), "", false, 900, 900, 1},
		"without its packet":           {strings.Repeat("x", 900), strings.Repeat("p", 900), false, 900, 900, 2},
		"by halves":                    {strings.Repeat("x", 3000), "", false, 450, 900, 4},
		"the limit is known":           {strings.Repeat("x", 3000), "", true, 850, 900, 4},
		"the limit is known, escaped":  {strings.Repeat(`"`, 3000), "", true, 400, 450, 4},
		"no part of a character":       {strings.Repeat("é😀", 1000), "", true, 850, 900, 4},
		"no part of a character, half": {strings.Repeat("é😀", 1000), "", false, 400, 900, 5},
	} {
		n := &narrow{limit: 1000, overhead: 100, tells: tc.tells}
		b := shorten.New(n)
		batch := backendtest.Messages(0, 3)
		batch[1].Body, batch[1].Packet = tc.body, tc.packet
		if err := errors.Join(b.Publish(t.Context(), batch)...); err != nil || len(n.got) != 3 {
			t.Fatalf("%s: %v", name, err)
		}
		got := n.got[len(n.got)-1]
		if tc.calls == 1 {
			got = n.got[1]
		}
		if len(got.Body) < tc.least || len(got.Body) > tc.most || !strings.HasPrefix(tc.body, got.Body) || !utf8.ValidString(got.Body) || n.calls > tc.calls {
			t.Errorf("%s: %d bytes are left after %d calls", name, len(got.Body), n.calls)
		}
		if cut := tc.calls > 1; (got.Metadata[backends.TruncatedKey] == true) != cut || (b.Counts()["bodies_cut"] == 1) != cut {
			t.Errorf("%s: metadata %v, counted %v", name, got.Metadata, b.Counts())
		}
		if _, marked := batch[1].Metadata[backends.TruncatedKey]; marked || batch[1].Body != tc.body {
			t.Errorf("%s: the caller's event was changed", name)
		}
	}
}

// TestNothingHelps: what is too large without a body is a dead letter.
func TestNothingHelps(t *testing.T) {
	n := &narrow{limit: 10, overhead: 100}
	b := shorten.New(n)
	err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]
	if backends.Reason(err) != "too_large" || !strings.Contains(err.Error(), "even without its body") || b.Counts()["bodies_cut"] != 0 {
		t.Errorf("%v", err)
	}
}

// TestWebhook: a receiver's own limit, which only its answer 413 shows.
func TestWebhook(t *testing.T) {
	var taken []byte
	receiver := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, err := io.ReadAll(nethttp.MaxBytesReader(w, r.Body, 10<<10))
		if err != nil {
			w.WriteHeader(nethttp.StatusRequestEntityTooLarge)
			return
		}
		taken = body
	}))
	defer receiver.Close()
	u, err := url.Parse(receiver.URL)
	if err != nil {
		t.Fatal(err)
	}
	webhook, err := http.New(http.Options{Name: "crm", URL: u, Choice: config.Choice{Format: config.FormatJSON}})
	if err != nil {
		t.Fatal(err)
	}
	b := shorten.New(webhook)
	defer b.Close()
	batch := backendtest.Messages(0, 1)
	batch[0].Body = strings.Repeat("x", 30<<10)
	batch[0].Packet = "<message><body>" + batch[0].Body + "</body></message>"
	if err := b.Publish(t.Context(), batch)[0]; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(taken), `"event_truncated":true`) || len(taken) < 5<<10 {
		t.Errorf("%d bytes: %.300s", len(taken), taken)
	}
	if err := b.Prepare(t.Context()); err != nil {
		t.Error(err)
	}
	if got := b.Probe(t.Context()); len(got) != 1 || !strings.Contains(got[0].Text, "takes connections") {
		t.Errorf("%v", got)
	}
}
