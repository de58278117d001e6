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
	"eventpusher/backends/rabbit"
	"eventpusher/backends/sns"
	"eventpusher/config"
)

// part is one configured backend.
type part struct {
	path  string // its section, as problems of the configuration name it
	build func(*slog.Logger) (backends.Backend, error)
}

// errNoPool says that the pool of a backend is not configured.
var errNoPool = errors.New("no pool")

// parts lists what [modules.mod_event_pusher] configures: sns, one backend for each
// http handler, rabbit, push.
func parts(cfg *config.Config) []part {
	var all []part
	if c := cfg.Pusher.SNS; c != nil {
		all = append(all, part{"modules.mod_event_pusher.sns", func(log *slog.Logger) (backends.Backend, error) {
			return sns.New(*c, cfg.General.Hosts, log)
		}})
	}
	if c := cfg.Pusher.HTTP; c != nil {
		for i, h := range c.Handlers {
			all = append(all, part{config.HandlerPath(i), func(*slog.Logger) (backends.Backend, error) {
				pool, ok := cfg.Pools.HTTP[h.PoolName]
				if !ok {
					return nil, fmt.Errorf("http: handler %s needs [%s]: %w", handlerName(h), config.HTTPPoolPath(h.PoolName), errNoPool)
				}
				return http.New(handlerName(h), h, pool)
			}})
		}
	}
	if c := cfg.Pusher.Rabbit; c != nil && (c.Presence != nil || c.Chat != nil || c.GroupChat != nil) {
		all = append(all, part{"modules.mod_event_pusher.rabbit", func(log *slog.Logger) (backends.Backend, error) {
			if cfg.Pools.Rabbit == nil {
				return nil, fmt.Errorf("rabbit: needs [outgoing_pools.rabbit.event_pusher]: %w", errNoPool)
			}
			return rabbit.New(*c, *cfg.Pools.Rabbit, log)
		}})
	}
	if c := cfg.Pusher.Push; c != nil {
		all = append(all, part{"modules.mod_event_pusher.push", func(log *slog.Logger) (backends.Backend, error) {
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
