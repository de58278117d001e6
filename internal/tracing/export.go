package tracing

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// exporter writes spans as OTLP over HTTP has them in JSON (OTLP 1.9, section "JSON Protobuf
// Encoding"). OpenTelemetry's own exporter brings gRPC along: 1.2 MB of the program and 3 MB of
// memory, for a service that has no need of it.
type exporter struct {
	url     string
	headers http.Header
	client  *http.Client
}

// newExporter reads the standard variables of OpenTelemetry's exporters.
func newExporter(env func(string) string) (*exporter, error) {
	of := func(name string) string {
		return cmp.Or(env("OTEL_EXPORTER_OTLP_TRACES_"+name), env("OTEL_EXPORTER_OTLP_"+name))
	}
	to := env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
	if to == "" {
		to = strings.TrimSuffix(cmp.Or(env("OTEL_EXPORTER_OTLP_ENDPOINT"), "http://localhost:4318"), "/") + "/v1/traces"
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("traces: OTEL_EXPORTER_OTLP_ENDPOINT is no URL: write http://collector:4318, say")
	}
	timeout := 10 * time.Second
	if ms, err := strconv.Atoi(of("TIMEOUT")); err == nil && ms > 0 {
		timeout = time.Duration(ms) * time.Millisecond
	}
	e := &exporter{url: to, headers: http.Header{"Content-Type": {"application/json"}}, client: &http.Client{Timeout: timeout}}
	for pair := range strings.SplitSeq(of("HEADERS"), ",") {
		name, value, ok := strings.Cut(pair, "=")
		if value, err := url.PathUnescape(strings.TrimSpace(value)); ok && err == nil {
			e.headers.Set(strings.TrimSpace(name), value)
		}
	}
	if of("COMPRESSION") == "gzip" {
		e.headers.Set("Content-Encoding", "gzip")
	}
	return e, nil
}

// The messages of OTLP, as far as the spans here have them.
type (
	traces struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource struct {
			Attributes []keyValue `json:"attributes"`
		} `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	scopeSpans struct {
		Scope struct {
			Name string `json:"name"`
		} `json:"scope"`
		Spans []span `json:"spans"`
	}
	span struct {
		TraceID    string     `json:"traceId"`
		SpanID     string     `json:"spanId"`
		ParentID   string     `json:"parentSpanId,omitempty"`
		Flags      uint32     `json:"flags"`
		Name       string     `json:"name"`
		Kind       int        `json:"kind"`
		Start      string     `json:"startTimeUnixNano"`
		End        string     `json:"endTimeUnixNano"`
		Attributes []keyValue `json:"attributes"`
		Status     status     `json:"status"`
	}
	status struct {
		Code    int    `json:"code,omitempty"`
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string         `json:"key"`
		Value map[string]any `json:"value"`
	}
)

// statusError is STATUS_CODE_ERROR.
const statusError = 2

func keyValues(list []attribute.KeyValue) []keyValue {
	all := make([]keyValue, 0, len(list))
	for _, a := range list {
		value := map[string]any{"stringValue": a.Value.String()}
		if a.Value.Type() == attribute.INT64 {
			value = map[string]any{"intValue": a.Value.String()}
		}
		all = append(all, keyValue{string(a.Key), value})
	}
	return all
}

// ExportSpans implements sdk.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, list []sdk.ReadOnlySpan) error {
	if len(list) == 0 {
		return nil
	}
	one := scopeSpans{}
	one.Scope.Name = list[0].InstrumentationScope().Name
	for _, s := range list {
		out := span{
			TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(), Flags: uint32(s.SpanContext().TraceFlags()), Name: s.Name(), Kind: int(s.SpanKind()),
			Start: strconv.FormatInt(s.StartTime().UnixNano(), 10), End: strconv.FormatInt(s.EndTime().UnixNano(), 10), Attributes: keyValues(s.Attributes()),
		}
		if s.Parent().SpanID().IsValid() {
			out.ParentID = s.Parent().SpanID().String()
		}
		if text := s.Status().Description; text != "" {
			out.Status = status{statusError, text}
		}
		one.Spans = append(one.Spans, out)
	}
	all := resourceSpans{ScopeSpans: []scopeSpans{one}}
	all.Resource.Attributes = keyValues(list[0].Resource().Attributes())
	body, err := json.Marshal(traces{[]resourceSpans{all}})
	if err == nil {
		err = e.post(ctx, body)
	}
	return err
}

func (e *exporter) post(ctx context.Context, body []byte) error {
	if e.headers.Get("Content-Encoding") != "" {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(body) // a buffer takes all
		_ = w.Close()
		body = b.Bytes()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = e.headers.Clone()
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the collector answers %s", resp.Status)
	}
	return nil
}

// Shutdown implements sdk.SpanExporter.
func (e *exporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}
