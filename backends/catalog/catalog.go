// Package catalog builds the backends that a configuration names.
package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"eventpusher/backends"
	"eventpusher/backends/http"
	"eventpusher/backends/push"
	"eventpusher/backends/rabbit"
	"eventpusher/backends/sns"
	"eventpusher/config"
)

// part is one configured backend.
type part struct {
	name  string // of the backend
	path  string // its section, as problems of the configuration name it
	when  string // its condition, if it has one
	build func(*slog.Logger) (backends.Backend, error)
}

// errNoPool says that the pool of a backend is not configured.
var errNoPool = errors.New("no pool")

// parts lists what [modules.mod_event_pusher] configures: sns, one backend for each
// http handler, rabbit, push.
func parts(cfg *config.Config) []part {
	var all []part
	if c := cfg.Pusher.SNS; c != nil {
		all = append(all, part{sns.Name, "modules.mod_event_pusher.sns", c.When, func(log *slog.Logger) (backends.Backend, error) {
			return sns.New(*c, cfg.General.Hosts, log)
		}})
	}
	if c := cfg.Pusher.HTTP; c != nil {
		for i, h := range c.Handlers {
			all = append(all, part{handlerName(h), config.HandlerPath(i), h.When, func(*slog.Logger) (backends.Backend, error) {
				pool, ok := cfg.Pools.HTTP[h.PoolName]
				if !ok {
					return nil, fmt.Errorf("http: handler %s needs [%s]: %w", handlerName(h), config.HTTPPoolPath(h.PoolName), errNoPool)
				}
				return http.New(handlerName(h), h, pool)
			}})
		}
	}
	if c := cfg.Pusher.Rabbit; c != nil && (c.Presence != nil || c.Chat != nil || c.GroupChat != nil) {
		all = append(all, part{rabbit.Name, "modules.mod_event_pusher.rabbit", c.When, func(log *slog.Logger) (backends.Backend, error) {
			if cfg.Pools.Rabbit == nil {
				return nil, fmt.Errorf("rabbit: needs [outgoing_pools.rabbit.event_pusher]: %w", errNoPool)
			}
			return rabbit.New(*c, *cfg.Pools.Rabbit, log)
		}})
	}
	if c := cfg.Pusher.Push; c != nil {
		all = append(all, part{push.Name, "modules.mod_event_pusher.push", c.When, func(log *slog.Logger) (backends.Backend, error) {
			return newPush(cfg, c, log)
		}})
	}
	return all
}

// Build returns the backends of [modules.mod_event_pusher]: sns, one for each
// http handler, rabbit, push, which has to be attached. Nothing is dialled, so a service
// that is down delays nothing. All errors are reported at once, joined.
func Build(cfg *config.Config, log *slog.Logger) ([]backends.Backend, error) {
	var built []backends.Backend
	var errs []error
	for _, p := range parts(cfg) {
		b, err := p.build(log)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		built = append(built, b)
	}
	if len(errs) > 0 {
		for _, b := range built {
			_ = b.Close() // nothing is open yet
		}
		return nil, errors.Join(errs...)
	}
	return built, nil
}

// Condition is the when of one backend, an expression that package pusher compiles.
type Condition struct {
	Backend    string // the name that Build gives it
	Path       string // the key of the configuration
	Expression string
}

// Conditions lists those of the backends that Build returns for cfg.
func Conditions(cfg *config.Config) []Condition {
	var all []Condition
	for _, p := range parts(cfg) {
		if p.when != "" {
			all = append(all, Condition{Backend: p.name, Path: p.path + ".when", Expression: p.when})
		}
	}
	return all
}

// handlerName returns the name of a handler: the configured one, or "http:POOL",
// followed by the start of the path's hash if there is a path. It stays the same
// whatever handlers stand beside it. The path itself is kept out of logs, metrics
// and the outbox: who knows that of a webhook can often post to it.
func handlerName(h config.HTTPHandler) string {
	if h.Name != "" {
		return h.Name
	}
	name := "http:" + h.PoolName
	if path := strings.TrimLeft(h.Path.Reveal(), "/"); path != "" {
		sum := sha256.Sum256([]byte(path))
		name += "/" + hex.EncodeToString(sum[:4])
	}
	return name
}
