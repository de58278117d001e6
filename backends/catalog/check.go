package catalog

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"eventpusher/backends/push/devices"
	"eventpusher/config"
)

// Check builds the backends of cfg and throws them away, and lists what keeps Build
// or the pusher from taking them, such as a certificate that cannot be parsed or two
// backends of one name. It connects to nothing.
//
// cfg may be what config.Examine returned beside the problems earlier; what those
// complain of is not reported again.
func Check(cfg *config.Config, earlier []config.Problem) []config.Problem {
	var problems []config.Problem
	report := func(path, text, remedy string) {
		problems = append(problems, config.Problem{Severity: config.Error, Path: path, Text: text, Remedy: remedy})
	}
	named := make(map[string]string) // section by name
	for _, p := range parts(stopgaps(cfg, earlier)) {
		var apps *devices.InvalidAppsError
		b, err := p.build(slog.New(slog.DiscardHandler))
		switch {
		case errors.Is(err, errNoPool): // config has said so
			continue
		case errors.As(err, &apps):
			problems = append(problems, slices.DeleteFunc(apps.Problems, func(p config.Problem) bool {
				return complains(earlier, p.Path, p.Path+"_file")
			})...)
			continue
		case err != nil:
			report(p.path, err.Error(), "")
			continue
		}
		other, taken := named[p.name]
		if taken && !complains(earlier, p.path, p.path+".name", other+".name") {
			report(p.path, fmt.Sprintf("is called %q, as %s is, and events wait under that name", p.name, other), "give one of them another name")
		}
		named[p.name] = p.path
		_ = b.Close() // nothing is open
	}
	return problems
}

// stopgaps returns cfg with something harmless in place of what earlier complains
// of, so that the rest can be built.
func stopgaps(cfg *config.Config, earlier []config.Problem) *config.Config {
	c := *cfg
	if s := c.Pusher.SNS; s != nil && s.Host == "" {
		copied := *s
		copied.Host = "stopgap.invalid"
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
