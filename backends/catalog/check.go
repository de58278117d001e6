package catalog

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"eventpusher/backends"
	"eventpusher/backends/push"
	"eventpusher/backends/push/devices"
	"eventpusher/config"
	"eventpusher/event"
)

// Check builds the backends of cfg and throws them away, and lists what keeps Build
// or the pusher from taking them, such as a certificate that cannot be parsed or two
// backends of one name. It connects to nothing.
//
// possible reports whether the condition of a backend may hold of such an event; compile is
// that of Build.
//
// cfg may be what config.Examine returned beside the problems earlier; what those
// complain of is not reported again.
func Check(cfg *config.Config, earlier []config.Problem, possible func(backend string, e *event.Event) bool, compile backends.Compile) []config.Problem {
	var problems []config.Problem
	report := func(path, text, remedy string) {
		problems = append(problems, config.Problem{Severity: config.Error, Path: path, Text: text, Remedy: remedy})
	}
	named := make(map[string]string) // section by name
	for _, p := range Parts(stopgaps(cfg, earlier)) {
		if p.own() && config.HasError(earlier, p.Path) {
			continue // config has said why it cannot be built
		}
		var apps *devices.InvalidAppsError
		b, err := p.Build(slog.New(slog.DiscardHandler), compile)
		switch {
		case errors.Is(err, errNoPool): // config has said so
			continue
		case errors.As(err, &apps):
			problems = append(problems, slices.DeleteFunc(apps.Problems, func(p config.Problem) bool {
				return complains(earlier, p.Path, p.Path+"_file")
			})...)
			continue
		case err != nil:
			report(p.Path, err.Error(), "")
			continue
		}
		other, taken := named[p.Name]
		if taken && !complains(earlier, p.Path, p.Path+".name", other+".name") {
			report(p.Path, fmt.Sprintf("is called %q, as %s is, and events wait under that name", p.Name, other), "give one of them another name")
		}
		named[p.Name] = p.Path
		_, isPush := b.(*push.Backend)
		if !isPush && !slices.ContainsFunc(earlier, func(e config.Problem) bool { return e.Path == p.Path }) {
			problems = append(problems, reached(p, b, possible)...)
		}
		_ = b.Close() // nothing is open
	}
	return problems
}

// reached warns of a backend that gets no event of any sort.
func reached(p Part, b backends.Backend, possible func(backend string, e *event.Event) bool) []config.Problem {
	all, err := event.ParseSelection([]string{"all"})
	if err != nil {
		return nil
	}
	var wanted []string
	for _, e := range all.Samples() {
		if !b.Wants(&e) {
			continue
		}
		if p.When == "" || possible(p.Name, &e) {
			return nil
		}
		wanted = append(wanted, e.Sort())
	}
	if len(wanted) == 0 {
		return []config.Problem{{Severity: config.Warning, Path: p.Path, Text: "gets no events: there is no topic or exchange for those that events names",
			Remedy: "add one, or correct events"}}
	}
	return []config.Problem{{Severity: config.Warning, Path: p.Path + ".when", Text: "is never true of the events that it is asked about (" + strings.Join(wanted, ", ") + "), so nothing is delivered",
		Remedy: "correct it, or name other events"}}
}

// stopgaps returns cfg with something harmless in place of what earlier complains
// of, so that the rest can be built.
func stopgaps(cfg *config.Config, earlier []config.Problem) *config.Config {
	c := *cfg
	if s := c.Pusher.SNS; s != nil && s.Region == "" {
		copied := *s
		copied.Region = "eu-west-1"
		c.Pusher.SNS = &copied
	}
	c.Pools.HTTP = maps.Clone(c.Pools.HTTP)
	for tag, pool := range c.Pools.HTTP {
		if pool.Host == "" {
			pool.Host = "https://stopgap.invalid" // with TLS, whose files are still to be read
		}
		if config.HasError(earlier, config.HTTPPoolPath(tag, "connection", "tls")) {
			pool.TLS = nil
		}
		c.Pools.HTTP[tag] = pool
	}
	if p := c.Pools.Rabbit; p != nil && config.HasError(earlier, "outgoing_pools.rabbit.event_pusher.connection.tls") {
		copied := *p
		copied.TLS = nil
		c.Pools.Rabbit = &copied
	}
	return &c
}

// complains reports whether there is an error about exactly one of these keys.
func complains(problems []config.Problem, paths ...string) bool {
	return slices.ContainsFunc(problems, func(p config.Problem) bool {
		return p.Severity == config.Error && slices.Contains(paths, p.Path)
	})
}
