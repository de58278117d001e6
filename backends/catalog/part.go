package catalog

import (
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push"
	"eventpusher/backends/rabbit"
	"eventpusher/backends/shorten"
	"eventpusher/backends/sns"
	"eventpusher/config"
)

// Part is one configured backend. It is a value.
type Part struct {
	Name string // of the backend
	Path string // its section, as problems of the configuration name it
	When string // its condition, an expression; empty: none

	large string // what becomes of what is too large for it (config.Choice)

	build func(*slog.Logger, backends.Compile) (backends.Backend, error)
	of    any     // what build reads
	files []stamp // what build reads of them
}

// Build returns the backend, as the function Build does for all of a configuration.
func (p *Part) Build(log *slog.Logger, compile backends.Compile) (backends.Backend, error) {
	b, err := p.build(log, compile)
	if err != nil || p.large != config.TruncateBody {
		return b, err
	}
	return shorten.New(b), nil
}

// Same reports whether both would build the same backend, whatever their conditions are. A
// certificate, key or credentials file that has changed on the disk is a difference.
func (p *Part) Same(o *Part) bool {
	return p.Name == o.Name && reflect.DeepEqual(p.of, o.of) && reflect.DeepEqual(p.files, o.files)
}

// IsPush reports whether it is [modules.mod_event_pusher.push].
func (p *Part) IsPush() bool { return p.Path == pushPath }

// own reports whether it is a [[destination]].
func (p *Part) own() bool { return strings.HasPrefix(p.Path, "destination[") }

const pushPath = "modules.mod_event_pusher.push"

// stamp is a file as it was when the configuration was read.
type stamp struct {
	name     string
	size     int64
	modified time.Time
}

// stamps notes the files of the sections; one that is not there has no size.
func stamps(sections []*config.TLS, others ...string) (list []stamp) {
	for _, t := range sections {
		if t != nil {
			others = append(append(others, t.CertFile, t.KeyFile, t.CACertFile), t.CRLFiles...)
		}
	}
	for _, name := range others {
		s := stamp{name: name}
		if info, err := os.Stat(name); name != "" && err == nil {
			s.size, s.modified = info.Size(), info.ModTime()
		}
		list = append(list, s)
	}
	return list
}

// Parts lists what the configuration delivers to: sns, one backend for each http handler,
// rabbit, push, and each [[destination]].
func Parts(cfg *config.Config) []Part {
	var all []Part
	if c := cfg.Pusher.SNS; c != nil {
		bare := *c
		bare.When = ""
		all = append(all, Part{
			Name: sns.Name, Path: "modules.mod_event_pusher.sns", When: c.When, large: c.TooLarge, of: []any{bare, cfg.General.Hosts},
			build: func(log *slog.Logger, compile backends.Compile) (backends.Backend, error) {
				return sns.New(sns.Options{Name: sns.Name, Section: *c, Hosts: cfg.General.Hosts, Compile: compile, Log: log})
			},
		})
	}
	if c := cfg.Pusher.HTTP; c != nil {
		names := handlerNames(c.Handlers)
		for i, h := range c.Handlers {
			pool, bare := cfg.Pools.HTTP[h.PoolName], h
			bare.When = ""
			all = append(all, Part{
				Name: names[i], Path: config.HandlerPath(i), When: h.When, large: h.TooLarge, of: []any{bare, pool}, files: stamps([]*config.TLS{pool.TLS}),
				build: func(*slog.Logger, backends.Compile) (backends.Backend, error) { return newHandler(cfg, names[i], h) },
			})
		}
	}
	if c := cfg.Pusher.Rabbit; c != nil && (c.Presence != nil || c.Chat != nil || c.GroupChat != nil) {
		all = append(all, rabbitPart(cfg, c))
	}
	if c := cfg.Pusher.Push; c != nil {
		all = append(all, pushPart(cfg, c))
	}
	for i, d := range cfg.Destinations {
		bare := d
		bare.When = ""
		all = append(all, Part{
			Name: d.Name, Path: config.DestinationPath(i), When: d.When, large: d.TooLarge, of: bare,
			files: stamps([]*config.TLS{d.TLS, d.Kafka.TLS, d.NATS.TLS}, append(slices.Clone(d.Files), d.NATS.CredentialsFile)...),
			build: func(log *slog.Logger, compile backends.Compile) (backends.Backend, error) {
				return newDestination(d, log, compile)
			},
		})
	}
	return all
}

func rabbitPart(cfg *config.Config, c *config.Rabbit) Part {
	bare := *c
	bare.When = ""
	p := Part{
		Name: rabbit.Name, Path: "modules.mod_event_pusher.rabbit", When: c.When, large: c.TooLarge, of: []any{bare, cfg.Pools.Rabbit},
		build: func(log *slog.Logger, compile backends.Compile) (backends.Backend, error) {
			if cfg.Pools.Rabbit == nil {
				return nil, fmt.Errorf("rabbit: needs [outgoing_pools.rabbit.event_pusher]: %w", errNoPool)
			}
			return rabbit.New(rabbit.Options{Name: rabbit.Name, Section: *c, Pool: *cfg.Pools.Rabbit, Compile: compile, Log: log})
		},
	}
	if cfg.Pools.Rabbit != nil {
		p.files = stamps([]*config.TLS{cfg.Pools.Rabbit.TLS})
	}
	return p
}

func pushPart(cfg *config.Config, c *config.Push) Part {
	bare := *c
	bare.When = ""
	of := []any{bare, cfg.AppServer, cfg.Pools.RDBMS, cfg.Pusher.MongoosePush}
	if m := cfg.Pusher.MongoosePush; m != nil {
		of = append(of, cfg.Pools.HTTP[m.PoolName])
	}
	return Part{
		Name: push.Name, Path: pushPath, When: c.When, of: of,
		build: func(log *slog.Logger, compile backends.Compile) (backends.Backend, error) {
			return newPush(cfg, c, log)
		},
	}
}
