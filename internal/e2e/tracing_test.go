package e2e

import (
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// With the standard variables, what becomes of an event is exported by OTLP, and receivers get
// what they need to go on with its trace.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	got := make(map[string]*spans.Span)
	collecting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(r.Body)
		}
		data, err := io.ReadAll(body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(data, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range request.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					got[s.Name] = s
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer collecting.Close()
	span := func(name string) *spans.Span {
		t.Helper()
		var s *spans.Span
		await(t, "the span "+name, func() bool {
			mu.Lock()
			defer mu.Unlock()
			s = got[name]
			return s != nil
		})
		return s
	}
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
	if hex.EncodeToString(root.TraceId) != id || hex.EncodeToString(delivery.TraceId) != id {
		t.Errorf("event %s, traces %x and %x", id, root.TraceId, delivery.TraceId)
	}
	if want := "00-" + id + "-" + hex.EncodeToString(root.SpanId) + "-01"; parent != want {
		t.Errorf("traceparent %q, want %q", parent, want)
	}
	if hex.EncodeToString(delivery.ParentSpanId) != hex.EncodeToString(root.SpanId) || len(root.ParentSpanId) != 0 ||
		delivery.StartTimeUnixNano < root.StartTimeUnixNano || delivery.EndTimeUnixNano <= delivery.StartTimeUnixNano {
		t.Errorf("spans: %v\n%v", root, delivery)
	}
	for _, s := range []*spans.Span{root, delivery} {
		if text := s.String(); strings.Contains(text, "localhost/") || strings.Contains(text, "1 1") {
			t.Errorf("a span tells of users: %s", text)
		}
	}
	w.sink.Answer(http.StatusBadRequest)
	if err := session.Send(numbered(1, 2)); err != nil {
		t.Fatal(err)
	}
	await(t, "a span with an error", func() bool {
		mu.Lock()
		defer mu.Unlock()
		s := got["deliver http:http_pool"]
		return s.Status.GetCode() == spans.Status_STATUS_CODE_ERROR && strings.Contains(s.Status.Message, "permanent")
	})
	if code := p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
