package filter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"eventpusher/config"
	"eventpusher/event"
)

// Compile makes filters of [[filter]] sections. Every problem of every
// section is reported; a section with an error gives no filter.
func Compile(cfg []config.Filter) ([]Filter, []config.Problem) {
	var (
		filters  []Filter
		problems []config.Problem
		names    = make(map[string]bool)
	)
	for i := range cfg {
		c := compilation{cfg: &cfg[i], where: fmt.Sprintf("filter %q", cfg[i].Name)}
		switch {
		case cfg[i].Name == "":
			c.where = fmt.Sprintf("filter[%d]", i)
			c.fault(config.Error, "name", "is missing", "give each [[filter]] a name; logs and metrics use it")
		case names[cfg[i].Name]:
			c.fault(config.Error, "name", "is used twice", "give each [[filter]] a name of its own")
		}
		names[cfg[i].Name] = true
		if f := c.filter(); f != nil {
			filters = append(filters, f)
		}
		problems = append(problems, c.problems...)
	}
	return filters, problems
}

// compilation is the work on one section.
type compilation struct {
	cfg      *config.Filter
	where    string
	problems []config.Problem
	columns  map[string]int // of faults in expressions, by path
	failed   bool
}

func (c *compilation) fault(severity config.Severity, key, text, remedy string) {
	c.problems = append(c.problems, config.Problem{Severity: severity, Path: c.where + ": " + key, Text: text, Remedy: remedy})
	c.failed = c.failed || severity == config.Error
}

func (c *compilation) expression(key, src string, wantBool bool) *program {
	p, err := compileExpression(src, wantBool)
	if err != nil {
		c.fault(config.Error, key, err.Error(), err.remedy)
		if c.columns == nil {
			c.columns = make(map[string]int)
		}
		c.columns[c.where+": "+key] = err.column
	}
	return p
}

func (c *compilation) filter() Filter {
	f := &expressionFilter{name: c.cfg.Name, priority: c.cfg.Priority}
	if f.priority == 0 {
		f.priority = DefaultFilterPriority
	}
	if f.priority < 1 || f.priority >= BackendPriority {
		c.fault(config.Error, "priority", fmt.Sprintf("is %d", f.priority),
			fmt.Sprintf("choose a number from 1 to %d: lower runs first, and backends stand at %d", BackendPriority-1, BackendPriority))
	}
	policy := Policy{Override: c.cfg.Override}
	switch c.cfg.OnError {
	case "", "dead_letter":
	case "keep":
		policy.OnError = OnErrorKeep
	case "drop":
		policy.OnError = OnErrorDrop
	default:
		c.fault(config.Error, "on_error", fmt.Sprintf("is %q", c.cfg.OnError), `use "dead_letter", "keep" or "drop"`)
	}
	if c.cfg.Settings != nil {
		return c.own(policy)
	}
	if strings.TrimSpace(c.cfg.Keep) != "" {
		f.keep = c.expression("keep", c.cfg.Keep, true)
	}
	c.metadata(f)
	if c.failed {
		return nil
	}
	return WithPolicy(f, policy)
}

// own builds a filter of a type that the program adds.
func (c *compilation) own(policy Policy) Filter {
	b, ok := c.cfg.Settings.(Builder)
	if !ok {
		c.fault(config.Error, "type", fmt.Sprintf("the settings of type %q cannot build a filter", c.cfg.Type), "implement filter.Builder in the program's source")
		return nil
	}
	judge, err := b.Build(*c.cfg)
	if err != nil {
		c.fault(config.Error, "type", err.Error(), "")
	}
	if c.failed {
		return nil
	}
	priority := c.cfg.Priority
	if priority == 0 {
		priority = DefaultFilterPriority
	}
	return WithPolicy(&ownFilter{c.cfg.Name, priority, judge}, policy)
}

// ownFilter is a filter of a type that the program adds.
type ownFilter struct {
	name     string
	priority int
	judge    Judge
}

func (f *ownFilter) Name() string                           { return f.name }
func (f *ownFilter) Priority() int                          { return f.priority }
func (f *ownFilter) Filter(e *event.Event) (Verdict, error) { return f.judge(e) }

// metadata compiles the expressions of metadata into f.
func (c *compilation) metadata(f *expressionFilter) {
	for _, key := range sortedKeys(c.cfg.Metadata) {
		path := "metadata." + key
		if text := keyFault(key); text != "" {
			c.fault(config.Error, path, text, fmt.Sprintf("use letters, digits, _, - and . , at most %d bytes", maxKeyBytes))
			continue
		}
		if event.ReservedKey(key) && !c.cfg.Override {
			c.fault(config.Error, path, "would replace a field of the payload", "choose another key, or set override = true in this filter")
			continue
		}
		if !attributeName(key) {
			c.fault(config.Warning, path, "is not a name that SNS message attributes can have, so SNS would carry it in the message only",
				"use letters, digits, _, - and single dots inside, not starting with AWS. or Amazon.")
		}
		if p := c.expression(path, c.cfg.Metadata[key], false); p != nil {
			f.metadata = append(f.metadata, metadataExpression{key: key, value: p})
		}
	}
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

var attributeSyntax = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// attributeName reports whether SNS takes the key as the name of a message
// attribute (Amazon SNS Developer Guide, Message attributes).
func attributeName(key string) bool {
	lower := strings.ToLower(key)
	return attributeSyntax.MatchString(key) && !strings.HasPrefix(lower, "aws.") && !strings.HasPrefix(lower, "amazon.")
}

// expressionFilter is a compiled [[filter]].
type expressionFilter struct {
	name     string
	priority int
	keep     *program // nil keeps everything
	metadata []metadataExpression

	env    environment
	values event.Metadata // used again for each event
}

type metadataExpression struct {
	key   string
	value *program
}

func (f *expressionFilter) Name() string  { return f.name }
func (f *expressionFilter) Priority() int { return f.priority }

// Filter implements the interface of this name.
func (f *expressionFilter) Filter(e *event.Event) (Verdict, error) {
	f.env.load(e)
	defer func() { f.env = environment{} }() // the event's buffer must not outlive it here
	if f.keep != nil {
		yes, err := f.keep.truth(&f.env)
		if err != nil {
			return Verdict{}, fmt.Errorf("keep: %w", err)
		}
		if !yes {
			return Verdict{Drop: true}, nil
		}
	}
	if len(f.metadata) == 0 {
		return Verdict{}, nil
	}
	if f.values == nil {
		f.values = make(event.Metadata, len(f.metadata))
	}
	for i := range f.metadata {
		m := &f.metadata[i]
		v, err := m.value.run(&f.env)
		if err == nil {
			var fault *filterError
			if v, fault = plainValue(v); fault != nil {
				err = fault
			}
		}
		if err != nil {
			return Verdict{}, fmt.Errorf("metadata.%s: %w", m.key, err)
		}
		f.values[m.key] = v
	}
	return Verdict{Metadata: f.values}, nil
}
