package bench

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"eventpusher/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t *testing.T, o Options) string {
	t.Helper()
	var out bytes.Buffer
	o.Rate, o.Duration, o.Out, o.Log = 200, time.Second, &out, slog.New(slog.DiscardHandler)
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Each message is delivered, and the figures are there.
func TestRun(t *testing.T) {
	got := run(t, Options{})
	for _, want := range []string{`messages +\d+ in 1\.\d s: `, `deliveries +receiver +[1-9]\d* a second; .* 0 attempts have failed`, `p50 [\d.]+[mµ]?s`, `µs for each delivery`, `limit +\w+`} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// The operator's destinations and filters are used, and nothing else of his file.
func TestOwnDestinations(t *testing.T) {
	sink, err := newReceiver()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.close()
	cfg, problems := config.Parse([]byte(`
[component]
address = "127.0.0.1:1"
name = "events.example.org"
secret = "real"
[general]
hosts = ["example.org"]
[outbox]
path = "`+t.TempDir()+`/outbox"
[[filter]]
name = "even ones"
keep = 'int(event.body) % 2 == 0'
[[destination]]
name = "crm"
type = "http"
url = "`+sink.url()+`"
format = "json"
`), nil, "")
	if cfg == nil {
		t.Fatal(problems)
	}
	sink.begin()
	sink.marked.Store(true)
	got := run(t, Options{Config: cfg})
	if n := len(sink.latencies()); !strings.Contains(got, "deliveries  crm") || strings.Contains(got, "receiver  ") || n == 0 || n > 390 {
		t.Errorf("%d delivered\n%s", n, got)
	}
	if !sink.marked.Load() {
		t.Error("an event is not marked as made up")
	}
}
