package filter

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"eventpusher/event"
)

// Chain runs filters over events. Its methods are for one goroutine at a time.
type Chain struct {
	steps   []step
	names   []string
	metrics Metrics
	log     *slog.Logger
}

// Metrics are what a Chain counts.
type Metrics struct {
	Verdicts *prometheus.CounterVec // with the labels filter and outcome: keep, drop or error; nil: not counted
	Panics   prometheus.Counter     // nil: not counted
}

// step is one filter with what belongs to it.
type step struct {
	filter           Filter
	policy           Policy
	keep, drop, fail prometheus.Counter
	logged           map[string]bool // kinds of errors that the log has already seen
}

// loggedKinds bounds how many kinds of errors of one filter are logged.
const loggedKinds = 32

// NewChain sorts the filters by priority, those of equal priority stay in order.
// It refuses priorities outside of 1 to BackendPriority-1, filters without a name
// and two of the same name. log may be nil.
func NewChain(filters []Filter, m Metrics, log *slog.Logger) (*Chain, error) {
	if m.Verdicts == nil {
		m.Verdicts = prometheus.NewCounterVec(prometheus.CounterOpts{}, []string{"filter", "outcome"})
	}
	if m.Panics == nil {
		m.Panics = prometheus.NewCounter(prometheus.CounterOpts{})
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Chain{metrics: m, log: log}
	names := make(map[string]bool)
	var problems []error
	for _, f := range filters {
		name, priority := f.Name(), f.Priority()
		switch {
		case name == "":
			problems = append(problems, errors.New("a filter has no name"))
		case names[name]:
			problems = append(problems, fmt.Errorf("two filters are called %q", name))
		case priority < 1 || priority >= BackendPriority:
			problems = append(problems, fmt.Errorf("filter %q has priority %d; it must be between 1 and %d, because backends stand at %d",
				name, priority, BackendPriority-1, BackendPriority))
		}
		names[name] = true
		c.steps = append(c.steps, step{
			filter: f, policy: policyOf(f), logged: make(map[string]bool),
			keep: m.Verdicts.WithLabelValues(name, "keep"),
			drop: m.Verdicts.WithLabelValues(name, "drop"),
			fail: m.Verdicts.WithLabelValues(name, "error"),
		})
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	slices.SortStableFunc(c.steps, func(a, b step) int { return a.filter.Priority() - b.filter.Priority() })
	for i := range c.steps {
		c.names = append(c.names, c.steps[i].filter.Name())
	}
	return c, nil
}

// Fate is what a chain has decided about an event.
type Fate uint8

// What can become of an event.
const (
	Keep        Fate = iota // it goes to the backends
	Drop                    // a filter withholds it
	DropOnError             // a filter failed whose policy is OnErrorDrop
	Dead                    // a filter failed: it goes to the dead letters
)

// Result is what a chain says about an event. The error, for Dead and DropOnError, names the
// filter and holds no content.
type Result struct {
	Fate Fate
	By   string // the filter that has decided; empty for Keep
	Err  error
}

// Names returns the names of the filters in the order in which they are asked. The slice must
// not be changed.
func (c *Chain) Names() []string { return c.names }

// Count is how often a filter has given each verdict since the start.
type Count struct {
	Name    string `json:"name"`
	Kept    uint64 `json:"kept"`
	Dropped uint64 `json:"dropped"`
	Failed  uint64 `json:"failed"`
}

// Counts returns the verdicts of each filter, in the order in which they are asked. It is safe
// for concurrent use.
func (c *Chain) Counts() []Count {
	counts := make([]Count, len(c.steps))
	for i := range c.steps {
		s := &c.steps[i]
		counts[i] = Count{c.names[i], valueOf(s.keep), valueOf(s.drop), valueOf(s.fail)}
	}
	return counts
}

func valueOf(c prometheus.Counter) uint64 {
	var m dto.Metric
	if c.Write(&m) != nil {
		return 0 // a counter always can
	}
	return uint64(m.GetCounter().GetValue())
}

// Run decides about e and adds the metadata of the filters to it.
func (c *Chain) Run(e *event.Event) Result {
	own := false // e.Metadata is a map that this run has made
	for i := range c.steps {
		s := &c.steps[i]
		verdict, err := c.ask(s, e)
		if err == nil && !verdict.Drop {
			err = s.admit(verdict.Metadata)
		}
		if err != nil {
			s.fail.Inc()
			c.report(s, err)
			if s.policy.OnError == OnErrorKeep {
				continue
			}
			err = fmt.Errorf("filter %q: %w", s.filter.Name(), err)
			if s.policy.OnError == OnErrorDrop {
				return Result{DropOnError, s.filter.Name(), err}
			}
			return Result{Dead, s.filter.Name(), err}
		}
		if verdict.Drop {
			s.drop.Inc()
			return Result{Fate: Drop, By: s.filter.Name()}
		}
		s.keep.Inc()
		if len(verdict.Metadata) == 0 {
			continue
		}
		if !own {
			merged := make(event.Metadata, len(e.Metadata)+len(verdict.Metadata))
			for k, v := range e.Metadata {
				merged[k] = v
			}
			e.Metadata, own = merged, true
		}
		for k, v := range verdict.Metadata {
			e.Metadata[k], _ = plainValue(v)
		}
	}
	return Result{}
}

// ask calls a filter and turns a panic into an error.
func (c *Chain) ask(s *step, e *event.Event) (v Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.metrics.Panics.Inc()
			err = NewPanic(p)
		}
	}()
	return s.filter.Filter(e)
}

// admit refuses metadata that payloads cannot carry.
func (s *step) admit(m event.Metadata) error {
	for k, v := range m {
		if text := keyFault(k); text != "" {
			return &filterError{kind: "metadata_key", text: "a metadata key " + text}
		}
		if event.ReservedKey(k) && !s.policy.Override {
			return &filterError{kind: "reserved_key", text: fmt.Sprintf("metadata key %q would replace a field of the payload", k)}
		}
		if _, err := plainValue(v); err != nil {
			return &filterError{kind: err.kind, text: fmt.Sprintf("metadata %q: %s", k, err.text)}
		}
	}
	return nil
}

// report logs a failure, once for each filter and kind of error.
func (c *Chain) report(s *step, err error) {
	kind := errorKind(err)
	if s.logged[kind] || len(s.logged) >= loggedKinds {
		return
	}
	s.logged[kind] = true
	attrs := []any{"filter", s.filter.Name(), "on_error", s.policy.OnError.String(), "kind", kind, "err", err}
	var p *Panic
	if errors.As(err, &p) {
		attrs = append(attrs, "stack", p.Stack)
	}
	c.log.Error("filter fails; further errors of this kind are only counted", attrs...)
}

// filterError is a failure of a filter that says what happened without any content.
type filterError struct {
	kind string
	text string
}

func (e *filterError) Error() string { return e.text }

func errorKind(err error) string {
	var known *filterError
	if errors.As(err, &known) {
		return known.kind
	}
	return fmt.Sprintf("%T", err)
}

// plainValue returns v as one of the types of event.Metadata.
func plainValue(v any) (any, *filterError) {
	switch x := v.(type) {
	case string, bool, int64:
		return x, nil
	case int:
		return int64(x), nil
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, &filterError{"not_finite", "the number is not finite"}
		}
		return x, nil
	case nil:
		return nil, &filterError{"no_value", "there is no value"}
	case time.Duration:
		return nil, &filterError{"value_type", "a duration is no value for metadata; use its Seconds()"}
	}
	r := reflect.ValueOf(v)
	switch {
	case r.Kind() == reflect.String:
		return r.String(), nil
	case r.CanInt():
		return r.Int(), nil
	case r.CanUint() && r.Uint() <= math.MaxInt64:
		return int64(r.Uint()), nil
	case r.Kind() == reflect.Float32:
		return plainValue(r.Float())
	case r.Kind() == reflect.Bool:
		return r.Bool(), nil
	}
	return nil, &filterError{"value_type", fmt.Sprintf("a %T is no value for metadata", v)}
}

// maxKeyBytes is the longest metadata key; SNS takes no longer attribute names.
const maxKeyBytes = 256

// keyFault says what is wrong with a metadata key, "" when nothing is.
func keyFault(key string) string {
	switch {
	case key == "":
		return "is empty"
	case len(key) > maxKeyBytes:
		return fmt.Sprintf("is longer than %d bytes", maxKeyBytes)
	case !utf8.ValidString(key):
		return "is not UTF-8"
	}
	for _, r := range key {
		if !unicode.IsPrint(r) {
			return "holds a character that cannot be printed"
		}
	}
	return ""
}
