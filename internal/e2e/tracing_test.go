package e2e

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.opentelemetry.io/collector/pdata/ptrace"
)

// With the standard variables, what becomes of an event is exported by OTLP, and receivers get
// what they need to go on with its trace.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	got := make(map[string]ptrace.Span)
	collecting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(r.Body)
		}
		data, err := io.ReadAll(body)
		var all ptrace.Traces
		if err == nil { // as the collector reads it
			all, err = (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(data)
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("X-Key") != "a b" {
			t.Errorf("%s: %v", r.URL.Path, err)
			return
		}
		service, _ := all.ResourceSpans().At(0).Resource().Attributes().Get("service.name")
		if service.AsString() != "eventpusher" {
			t.Errorf("service %q", service.AsString())
		}
		mu.Lock()
		defer mu.Unlock()
		list := all.ResourceSpans().At(0).ScopeSpans().At(0).Spans()
		for i := range list.Len() {
			got[list.At(i).Name()] = list.At(i)
		}
	}))
	defer collecting.Close()
	span := func(name string) (s ptrace.Span) {
		t.Helper()
		await(t, "the span "+name, func() (ok bool) {
			mu.Lock()
			defer mu.Unlock()
			s, ok = got[name]
			return ok
		})
		return s
	}
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Key=a%20b")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collecting.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	server, w, program, config := prepareProcess(t, "")
	p := run(t, program, config)
	session, err := server.Accept(contextFor(t, limit))
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Send(numbered(1, 1)); err != nil {
		t.Fatal(err)
	}
	request := w.sink.Wait(1)[0]
	id, parent := request.Header.Get("webhook-id"), request.Header.Get("traceparent")
	root, delivery := span("event chat.in"), span("deliver http:http_pool")
	if root.TraceID().String() != id || delivery.TraceID().String() != id {
		t.Errorf("event %s, traces %s and %s", id, root.TraceID(), delivery.TraceID())
	}
	if want := "00-" + id + "-" + root.SpanID().String() + "-01"; parent != want {
		t.Errorf("traceparent %q, want %q", parent, want)
	}
	if delivery.ParentSpanID() != root.SpanID() || !root.ParentSpanID().IsEmpty() || root.Kind() != ptrace.SpanKindConsumer || delivery.Kind() != ptrace.SpanKindProducer ||
		delivery.StartTimestamp() < root.StartTimestamp() || delivery.EndTimestamp() <= delivery.StartTimestamp() {
		t.Errorf("spans: %+v\n%+v", root, delivery)
	}
	for _, s := range []ptrace.Span{root, delivery} {
		for key, value := range s.Attributes().All() {
			if text := value.AsString(); strings.Contains(text, "localhost/") || strings.Contains(text, "1 1") {
				t.Errorf("a span tells of users: %s = %s", key, text)
			}
		}
	}
	w.sink.Answer(http.StatusBadRequest)
	if err := session.Send(numbered(1, 2)); err != nil {
		t.Fatal(err)
	}
	await(t, "a span with an error", func() bool {
		mu.Lock()
		defer mu.Unlock()
		s := got["deliver http:http_pool"].Status()
		return s.Code() == ptrace.StatusCodeError && strings.Contains(s.Message(), "permanent")
	})
	if code := p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
