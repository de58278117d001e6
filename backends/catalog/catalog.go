// Package catalog builds the backends that a configuration names.
package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"eventpusher/backends"
	"eventpusher/backends/http"
	"eventpusher/backends/kafka"
	"eventpusher/backends/nats"
	"eventpusher/backends/rabbit"
	"eventpusher/backends/sns"
	"eventpusher/config"
)

// errNoPool says that the pool of a backend is not configured.
var errNoPool = errors.New("no pool")

// newHandler builds the backend of a handler of MongooseIM's http section.
func newHandler(cfg *config.Config, name string, h config.HTTPHandler) (backends.Backend, error) {
	pool, ok := cfg.Pools.HTTP[h.PoolName]
	if !ok {
		return nil, fmt.Errorf("http: handler %s needs [%s]: %w", name, config.HTTPPoolPath(h.PoolName), errNoPool)
	}
	target, err := http.JoinURL(pool.Host, pool.PathPrefix, h.Path.Reveal())
	if err != nil {
		return nil, fmt.Errorf("http: pool %s: %w", h.PoolName, err)
	}
	return http.New(http.Options{Name: name, URL: target, Workers: pool.Workers, Timeout: pool.RequestTimeout, TLS: pool.TLS, Choice: h.Choice})
}

// newDestination builds the backend of a [[destination]].
func newDestination(d config.Destination, log *slog.Logger, compile backends.Compile) (backends.Backend, error) {
	switch d.Type {
	case "nats":
		return nats.New(d, log)
	case "kafka":
		return kafka.New(d, log)
	case "rabbit":
		section, pool := d.RabbitSection()
		return rabbit.New(rabbit.Options{Name: d.Name, Section: section, Pool: pool, Compile: compile, Log: log})
	case "sns":
		return sns.New(sns.Options{Name: d.Name, Section: d.SNSSection(), Compile: compile, Log: log})
	}
	if d.Settings == nil {
		return newHTTP(d)
	}
	b, ok := d.Settings.(Builder)
	if !ok {
		return nil, fmt.Errorf("the settings of type %q cannot build a backend: implement catalog.Builder in the program's source", d.Type)
	}
	return b.Build(d, log, compile)
}

// Builder is implemented by the settings of a type of [[destination]] that a program adds.
type Builder interface {
	config.Settings
	// Build returns the backend of a destination, whose Settings are the receiver. It is
	// called at check as well: it connects to nothing and creates nothing, which is for
	// backends.Preparing and Publish. compile compiles expressions of the settings. An error
	// says what to correct in the configuration, and holds no secret.
	Build(d config.Destination, log *slog.Logger, compile backends.Compile) (backends.Backend, error)
}

func newHTTP(d config.Destination) (backends.Backend, error) {
	target, err := url.Parse(d.URL.Reveal())
	if err != nil { // its text is not shown: it may hold a secret
		return nil, errors.New("http: url is no URL")
	}
	return http.New(http.Options{Name: d.Name, URL: target, Workers: d.Workers, Timeout: d.Timeout, TLS: d.TLS, Choice: d.Choice, HTTP: d.HTTP})
}

// Build returns the backends of [modules.mod_event_pusher]: sns, one for each
// http handler, rabbit, push, which has to be attached. Nothing is dialled, so a service
// that is down delays nothing. compile is for the expressions of destinations; nil if there
// are none. All errors are reported at once, joined.
func Build(cfg *config.Config, log *slog.Logger, compile backends.Compile) ([]backends.Backend, error) {
	var built []backends.Backend
	var errs []error
	for _, p := range Parts(cfg) {
		b, err := p.Build(log, compile)
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
	for _, p := range Parts(cfg) {
		if p.When != "" {
			all = append(all, Condition{Backend: p.Name, Path: p.Path + ".when", Expression: p.When})
		}
	}
	return all
}

// handlerNames returns the name of each handler: the configured one, or "http:POOL" for the
// first handler of a pool without a name of its own, "http:POOL/2" for the second and so
// on. The path is kept out of logs, metrics and the outbox: who knows that of a webhook
// can often post to it.
func handlerNames(handlers []config.HTTPHandler) []string {
	names := make([]string, len(handlers))
	nameless := make(map[string]int) // by pool
	for i, h := range handlers {
		if names[i] = h.Name; h.Name != "" {
			continue
		}
		names[i] = "http:" + h.PoolName
		if nameless[h.PoolName]++; nameless[h.PoolName] > 1 {
			names[i] += fmt.Sprintf("/%d", nameless[h.PoolName])
		}
	}
	return names
}

// FormerName is the name that an earlier version gave to a backend.
type FormerName struct {
	Name, Former string
	Hashed       bool // Former has a form that no name has today
}

// FormerNames returns the handlers without a name of their own, with what earlier versions
// called them: "http:POOL", followed by the start of the path's hash if there is a path.
func FormerNames(cfg *config.Config) (list []FormerName) {
	if cfg.Pusher.HTTP == nil {
		return nil
	}
	for i, name := range handlerNames(cfg.Pusher.HTTP.Handlers) {
		h := cfg.Pusher.HTTP.Handlers[i]
		if h.Name != "" {
			continue
		}
		f := FormerName{Name: name, Former: "http:" + h.PoolName}
		if path := strings.TrimLeft(h.Path.Reveal(), "/"); path != "" {
			sum := sha256.Sum256([]byte(path))
			f.Former, f.Hashed = f.Former+"/"+hex.EncodeToString(sum[:4]), true
		}
		list = append(list, f)
	}
	return list
}
