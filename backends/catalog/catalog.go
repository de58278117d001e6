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

// Build returns the backends of [modules.mod_event_pusher]: sns, one for each
// http handler, rabbit. Nothing is dialled, so a service that is down delays
// nothing. All errors are reported at once, joined.
func Build(cfg *config.Config, log *slog.Logger) ([]backends.Backend, error) {
	var built []backends.Backend
	var errs []error
	add := func(b backends.Backend, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		built = append(built, b)
	}
	if c := cfg.Pusher.SNS; c != nil {
		b, err := sns.New(*c, cfg.General.Hosts, log)
		add(b, err)
	}
	if c := cfg.Pusher.HTTP; c != nil {
		for _, h := range c.Handlers {
			pool, ok := cfg.Pools.HTTP[h.PoolName]
			if !ok {
				errs = append(errs, fmt.Errorf("http: handler %s needs [outgoing_pools.http.%s]", handlerName(h), h.PoolName))
				continue
			}
			b, err := http.New(handlerName(h), h, pool)
			add(b, err)
		}
	}
	if c := cfg.Pusher.Rabbit; c != nil && (c.Presence != nil || c.Chat != nil || c.GroupChat != nil) {
		if cfg.Pools.Rabbit == nil {
			errs = append(errs, errors.New("rabbit: needs [outgoing_pools.rabbit.event_pusher]"))
		} else {
			b, err := rabbit.New(*c, *cfg.Pools.Rabbit, log)
			add(b, err)
		}
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
