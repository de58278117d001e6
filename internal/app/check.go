package app

import (
	"fmt"
	"log/slog"

	"eventpusher/backends/catalog"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher/filter"
)

// Check builds what New builds and throws it away, to find what only the parts
// themselves can tell, such as a filter expression that does not compile.
// It connects to nothing and touches no outbox.
//
// cfg may be what config.Examine returned beside the problems earlier; what those
// complain of is not reported again.
func Check(cfg *config.Config, earlier []config.Problem) []config.Problem {
	var problems []config.Problem
	for i, f := range cfg.Filters {
		if f.Name == "" { // config has said so
			f.Name = fmt.Sprintf("(number %d)", i+1)
		}
		// One by one, since config has compared their names.
		_, found := filter.Compile([]config.Filter{f})
		problems = append(problems, found...)
	}
	conditions, found := compileConditions(cfg)
	problems = append(problems, found...)
	problems = append(problems, catalog.Check(cfg, earlier, func(backend string, e *event.Event) bool {
		c := conditions[backend]
		return c == nil || c.Possible(e)
	}, filter.CompileValue)...)
	problems = append(problems, checkOutbox(cfg.Outbox, earlier)...)
	return append(problems, checkLink(cfg, earlier)...)
}

// LogProblems logs the problems of a configuration.
func LogProblems(log *slog.Logger, problems []config.Problem) {
	for _, p := range problems {
		switch p.Severity {
		case config.Error:
			log.Error("configuration", "key", p.Path, "problem", p.Text, "remedy", p.Remedy)
		case config.Warning:
			log.Warn("configuration", "key", p.Path, "problem", p.Text, "remedy", p.Remedy)
		default:
			log.Info("configuration", "key", p.Path, "note", p.Text)
		}
	}
}

// compileConditions compiles the when of each backend that has one, by the backends' names.
func compileConditions(cfg *config.Config) (map[string]*filter.Condition, []config.Problem) {
	compiled := make(map[string]*filter.Condition)
	var problems []config.Problem
	for _, c := range catalog.Conditions(cfg) {
		condition, found := filter.CompileCondition(c.Path, c.Expression)
		problems = append(problems, found...)
		if condition != nil {
			compiled[c.Backend] = condition
		}
	}
	return compiled, problems
}

// checkLink checks [component], with something harmless in place of what is missing,
// as config has said.
func checkLink(cfg *config.Config, earlier []config.Problem) []config.Problem {
	c, hosts := cfg.Component, cfg.General.Hosts
	if c.Name == "" {
		c.Name = "stopgap.invalid"
	}
	if len(hosts) == 0 {
		hosts = []string{"stopgap.invalid"}
	}
	if config.HasError(earlier, "component.tls") {
		c.TLS = nil
	}
	if _, err := component.New(c, hosts, component.Options{}); err != nil {
		return []config.Problem{{Severity: config.Error, Path: "component", Text: err.Error()}}
	}
	return nil
}
