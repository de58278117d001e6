// Package tracing makes spans of OpenTelemetry of what becomes of events, and says how receivers
// go on with them (W3C Trace Context). It is off unless the standard variables of OpenTelemetry
// ask for it.
//
// A trace is named after its event: both have IDs of 16 bytes. So the trace goes on after a
// restart, and at another instance, and nothing has to be kept for it.
package tracing

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"eventpusher/event"
)

// Header is the header, attribute or CloudEvents extension that has what Parent returns.
const Header = "traceparent"

// running is the tracer of the process, as OpenTelemetry itself has one, so that every backend
// finds it; nil if there is none.
var running atomic.Pointer[Tracer]

// Parent returns what a receiver needs to go on with the trace of an event, "" if there is
// none. It is safe for concurrent use.
func Parent(eventID string) string {
	t := running.Load()
	if t == nil {
		return ""
	}
	id, err := trace.TraceIDFromHex(eventID)
	if err != nil || !t.samples(id) {
		return ""
	}
	return "00-" + eventID + "-" + rootOf(id).String() + "-01"
}

// Tracer makes spans and exports them. Its methods are safe for concurrent use, and do nothing
// if it is nil.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	sampler  sdk.Sampler
}

// Start returns the tracer that the environment asks for, nil if it asks for none. It exports by
// OTLP over HTTP. Other exporters and protocols are logged and not used.
func Start(ctx context.Context, env func(string) string, version string, log *slog.Logger) (*Tracer, error) {
	wanted := env("OTEL_TRACES_EXPORTER") == "otlp" ||
		env("OTEL_TRACES_EXPORTER") == "" && env("OTEL_EXPORTER_OTLP_ENDPOINT")+env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") || !wanted {
		return nil, nil
	}
	for _, key := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := env(key); p == "grpc" {
			log.Warn("traces are exported by OTLP over HTTP, in JSON, alone", "variable", key, "value", p, "remedy", "write http/json, and the collector's HTTP port, usually 4318")
		}
	}
	sampler, err := samplerOf(env("OTEL_TRACES_SAMPLER"), env("OTEL_TRACES_SAMPLER_ARG"))
	if err != nil {
		return nil, err
	}
	exporter, err := newExporter(env)
	if err != nil {
		return nil, err
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "eventpusher"), attribute.String("service.version", version)),
		resource.WithHost(), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces cannot be exported", "err", err) }))
	p := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithSampler(sampler), sdk.WithResource(about), sdk.WithIDGenerator(given{}))
	t := &Tracer{provider: p, tracer: p.Tracer("eventpusher"), sampler: sampler}
	running.Store(t)
	return t, nil
}

// samplerOf returns a sampler by its standard name. All traces begin here, so those that are
// based on a parent are what they are without one.
func samplerOf(name, arg string) (sdk.Sampler, error) {
	switch strings.TrimPrefix(name, "parentbased_") {
	case "", "always_on":
		return sdk.AlwaysSample(), nil
	case "always_off":
		return sdk.NeverSample(), nil
	case "traceidratio":
		ratio := 1.0
		if arg != "" {
			var err error
			if ratio, err = strconv.ParseFloat(arg, 64); err != nil || ratio < 0 || ratio > 1 {
				return nil, fmt.Errorf("traces: OTEL_TRACES_SAMPLER_ARG is %q: write a number from 0 to 1", arg)
			}
		}
		return sdk.TraceIDRatioBased(ratio), nil
	}
	return nil, fmt.Errorf("traces: OTEL_TRACES_SAMPLER is %q: write always_on, always_off or traceidratio", name)
}

func (t *Tracer) samples(id trace.TraceID) bool {
	return t.sampler.ShouldSample(sdk.SamplingParameters{ParentContext: context.Background(), TraceID: id}).Decision == sdk.RecordAndSample
}

// Close exports what is left until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	running.CompareAndSwap(t, nil)
	return t.provider.Shutdown(ctx)
}

// Event makes the span of an event that has come, from when the feed says that it happened.
// fate says what has become of it, filter is the one that has decided, or empty.
func (t *Tracer) Event(e *event.Event, came time.Time, fate, filter string) {
	if t == nil {
		return
	}
	id, err := trace.TraceIDFromHex(e.ID)
	if err != nil || !t.samples(id) {
		return
	}
	began := came
	if e.Time.Before(came) && !e.Time.IsZero() {
		began = e.Time
	}
	ctx := context.WithValue(context.Background(), key{}, ids{id, rootOf(id)})
	_, span := t.tracer.Start(ctx, "event "+e.Sort(), trace.WithTimestamp(began), trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.message.id", e.ID), attribute.String("eventpusher.sort", e.Sort()), attribute.String("eventpusher.host", e.Host),
		attribute.String("eventpusher.feed", e.Dialect), attribute.String("eventpusher.fate", fate), attribute.String("eventpusher.filter", filter)))
	span.End(trace.WithTimestamp(time.Now()))
}

// Delivery makes the span of an event at a destination, from when the outbox had it. reason is
// why it has become a dead letter, empty if it was delivered.
func (t *Tracer) Delivery(e *event.Event, destination string, accepted, ended time.Time, tries int, reason string) {
	if t == nil {
		return
	}
	id, err := trace.TraceIDFromHex(e.ID)
	if err != nil || !t.samples(id) {
		return
	}
	root := trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: rootOf(id), TraceFlags: trace.FlagsSampled, Remote: true})
	ctx := context.WithValue(trace.ContextWithSpanContext(context.Background(), root), key{}, ids{id, spanOf(id, destination)})
	_, span := t.tracer.Start(ctx, "deliver "+destination, trace.WithTimestamp(accepted), trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
		attribute.String("messaging.message.id", e.ID), attribute.String("messaging.destination.name", destination), attribute.Int("eventpusher.attempts", tries)))
	if reason != "" {
		span.SetStatus(codes.Error, "dead letter: "+reason)
	}
	span.End(trace.WithTimestamp(ended))
}

// rootOf returns the ID of the span of an event.
func rootOf(id trace.TraceID) trace.SpanID { return spanOf(id, "") }

// spanOf returns the ID of the span of an event at a destination: the same each time.
func spanOf(id trace.TraceID, destination string) (s trace.SpanID) {
	h := fnv.New64a()
	h.Write(id[:])
	h.Write([]byte(destination))
	binary.BigEndian.PutUint64(s[:], h.Sum64()|1) // never 0
	return s
}

// given is an sdk.IDGenerator: it takes the IDs from the context.
type given struct{}

type key struct{}

type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

func (given) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	i, _ := ctx.Value(key{}).(ids)
	return i.trace, i.span
}

func (given) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	i, _ := ctx.Value(key{}).(ids)
	return i.span
}
