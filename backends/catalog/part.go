package catalog

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"

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
	of    any // what build reads

	// Files are what build reads, as they were when the configuration was read.
	Files Files
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
	return p.Name == o.Name && reflect.DeepEqual(p.of, o.of) && slices.Equal(p.Files, o.Files)
}

// IsPush reports whether it is [modules.mod_event_pusher.push].
func (p *Part) IsPush() bool { return p.Path == PushPath }

// own reports whether it is a [[destination]].
func (p *Part) own() bool { return strings.HasPrefix(p.Path, "destination[") }

// PushPath is the section of push.
const PushPath = "modules.mod_event_pusher.push"

// Files are files that a part of the program reads, as they were at a time. It is a value.
type Files []file

// file is a file with the SHA-256 of what it held; if it cannot be read, the sum is zero.
type file struct {
	name string
	sum  [sha256.Size]byte
}

// NewFiles reads the files of the sections, which can be nil, and the others. Empty names are left out.
func NewFiles(sections []*config.TLS, others ...string) (list Files) {
	for _, t := range sections {
		if t != nil {
			others = append(append(others, t.CertFile, t.KeyFile, t.CACertFile), t.CRLFiles...)
		}
	}
	for _, name := range others {
		if name != "" {
			list = append(list, file{name, sum(name)})
		}
	}
	return list
}

// sum reads regular files only: the program would wait for others.
func sum(name string) (sum [sha256.Size]byte) {
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
		return sum
	}
	f, err := os.Open(name)
	if err != nil {
		return sum
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err == nil {
		h.Sum(sum[:0])
	}
	return sum
}

// Changed names the files that hold something else than in old. A file that is not in both lists is left out.
func (f Files) Changed(old Files) (names []string) {
	for _, now := range f {
		differs := func(was file) bool { return was.name == now.name && was.sum != now.sum }
		if slices.ContainsFunc(old, differs) && !slices.Contains(names, now.name) {
			names = append(names, now.name)
		}
	}
	return names
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
				Name: names[i], Path: config.HandlerPath(i), When: h.When, large: h.TooLarge, of: []any{bare, pool}, Files: NewFiles([]*config.TLS{pool.TLS}),
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
			Files: NewFiles([]*config.TLS{d.TLS, d.Kafka.TLS, d.NATS.TLS}, append(slices.Clone(d.Files), d.NATS.CredentialsFile)...),
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
		p.Files = NewFiles([]*config.TLS{cfg.Pools.Rabbit.TLS})
	}
	return p
}

func pushPart(cfg *config.Config, c *config.Push) Part {
	bare := *c
	bare.When = ""
	of := []any{bare, cfg.AppServer, cfg.Pools.RDBMS, cfg.Pusher.MongoosePush}
	var sections []*config.TLS
	if m := cfg.Pusher.MongoosePush; m != nil {
		pool := cfg.Pools.HTTP[m.PoolName]
		of, sections = append(of, pool), append(sections, pool.TLS)
	}
	if cfg.Pools.RDBMS != nil {
		sections = append(sections, cfg.Pools.RDBMS.TLS)
	}
	return Part{
		Name: push.Name, Path: PushPath, When: c.When, of: of, Files: NewFiles(sections, cfg.AppServer.CACertFiles()...),
		build: func(log *slog.Logger, compile backends.Compile) (backends.Backend, error) {
			return newPush(cfg, c, log)
		},
	}
}
