// Package app puts the parts together: component, translator, pusher, backends
// and admin, from one configuration.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"eventpusher/admin"
	"eventpusher/backends/catalog"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/internal/control"
	"eventpusher/internal/doctor"
	"eventpusher/internal/tracing"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
	"eventpusher/translator"
)

// Options are what the process gives to the daemon.
type Options struct {
	Log     *slog.Logger
	Version string
	// HeldLines returns how many lines the log has held back; nil: none. It is called by
	// several goroutines.
	HeldLines func() uint64
	// Redact returns a text of a backend without secrets that are in it; nil: there are none.
	Redact func(string) string
	// Load reads the configuration again, with all problems; the configuration is nil if one
	// of them is an error. nil: there is nothing to read, and no reload.
	Load func() (*config.Config, []config.Problem)
	// Changing is called before a configuration takes the place of another one, and the other way
	// round if the change has failed; nil: nobody cares.
	Changing func(old, fresh *config.Config)
	// Spans exports what becomes of events; nil: nothing is exported.
	Spans *tracing.Tracer
}

// App is the whole daemon. Its methods are safe for concurrent use.
type App struct {
	options  Options
	running  atomic.Pointer[config.Config] // the configuration that holds
	started  started
	log      *slog.Logger
	link     *component.Link
	sink     *sink
	watch    *doctor.Watch
	pusher   *pusher.Pusher
	metrics  *pusher.Metrics
	reloads  reloadMetrics
	backends fleet
	box      outbox.Outbox
	admin    *admin.Server   // nil without [admin] listen
	control  *control.Server // nil if its socket could not be made
	began    time.Time
	pushing  pushParts

	reloading sync.Mutex         // held by a reload
	opened    chan struct{}      // closed once launch is set
	launch    func(*destination) // of Run; nil when it stops
}

// cfg returns the configuration that holds now.
func (a *App) cfg() *config.Config { return a.running.Load() }

// New builds the daemon and opens the outbox. Nothing is dialled or listened on
// before Run but the admin listener, so that a taken port is an error at start.
func New(cfg *config.Config, o Options) (*App, error) {
	a := &App{options: o, log: o.Log, began: time.Now(), opened: make(chan struct{})}
	a.running.Store(cfg)
	a.pushing = newPushParts(cfg)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(o.Version))
	if o.HeldLines != nil {
		registry.MustRegister(heldLines(o.HeldLines))
	}
	b := builder{App: a, version: o.Version, redact: o.Redact, registry: registry}
	for _, step := range []func() error{b.delivery, b.push, b.attach, b.listen} {
		if err := step(); err != nil {
			return nil, errors.Join(err, a.close())
		}
	}
	return a, nil
}

// builder is what the steps of New share. Each step needs what those before it have made.
type builder struct {
	*App
	version  string
	redact   func(string) string
	registry *prometheus.Registry
	trace    *trace.Recorder
	iqs      []component.IQHandler
	api      map[string]http.Handler
}

// delivery makes what takes events: backends, outbox, translator and pusher.
func (b *builder) delivery() error {
	cfg := b.cfg()
	b.metrics, b.reloads = pusher.NewMetrics(b.registry), newReloadMetrics(b.registry)
	chain, conditions, err := b.judges(cfg)
	if err != nil {
		return err
	}
	parts := catalog.Parts(cfg)
	b.started = newStarted(cfg, parts) // before anything reads the files
	if err := b.backends.build(parts, b.log); err != nil {
		return err
	}
	list := b.backends.all()
	box, opened, err := openOutbox(cfg, list, b.log)
	if err != nil {
		return err
	}
	b.box = box
	tr := translator.New(translator.Options{
		Hosts: cfg.General.Hosts, MUCHosts: cfg.Component.MUCHosts, Component: cfg.Component.Name,
		ToUsersOnly: cfg.Pusher.ToUsersOnly(),
	})
	b.trace = trace.New()
	b.sink = &sink{translator: tr, box: box, crowd: crowd{log: b.log}, trace: b.trace}
	b.pusher, err = pusher.New(pusher.Options{
		Trace: b.trace, Spans: b.options.Spans, Feeds: b.sink, Chain: chain, Backends: list, Conditions: conditions, Outbox: box, MaxAge: cfg.Outbox.MaxAge, Redact: b.redact, Metrics: b.metrics, Log: b.log,
	})
	if err != nil {
		return err
	}
	b.sink.pusher = b.pusher
	if e, ok := box.(outbox.Elector); ok {
		b.registry.MustRegister(newClusterCollector(e))
	}
	b.registry.MustRegister(newTranslatorCollector(tr), newBackendCollector(b.backends.all), newOutboxCollector(box, opened))
	b.control = listenControl(cfg.Outbox.Path, kept{box, b.pusher}, b.examine, b.log)
	if b.control != nil {
		b.control.HandleReload(b.Reload)
		b.control.HandleReady(b.notReady)
	}
	return nil
}

// judges returns the filters and the conditions of a configuration.
func (a *App) judges(cfg *config.Config) (*filter.Chain, map[string]*filter.Condition, error) {
	filters, problems := filter.Compile(cfg.Filters)
	conditions, found := compileConditions(cfg)
	for _, p := range append(problems, found...) {
		if p.Severity == config.Error {
			return nil, nil, errors.New(p.String())
		}
	}
	chain, err := filter.NewChain(filters, a.metrics.Filters(), a.log)
	return chain, conditions, err
}

// attach makes the link to the XMPP server, and what watches it.
func (b *builder) attach() (err error) {
	cfg := b.cfg()
	b.link, err = component.New(cfg.Component, cfg.General.Hosts, component.Options{
		Sink: b.sink, Passed: b.sink.passed, IQ: b.iqs, Metrics: component.NewMetrics(b.registry), Log: b.log, Version: b.version,
	})
	if err != nil {
		return err
	}
	b.watch = doctor.NewWatch(b.link, b.App.cfg, b.registry, b.log)
	b.sink.link = b.link
	if b.control != nil {
		var push control.Push
		if b.pushing.users != nil {
			push = b.pushing.users
		}
		b.control.HandleEvents(b.pusher, b.trace, push)
	}
	if b.pushing.users != nil {
		b.pushing.users.Attach(b.link)
	}
	return nil
}

// listen opens the admin listener, if there is to be one.
func (b *builder) listen() (err error) {
	cfg := b.cfg()
	if cfg.Admin.Listen == "" {
		return nil
	}
	b.admin, err = admin.New(cfg.Admin, admin.Options{
		Gatherer: b.registry, Registerer: b.registry, Ready: b.notReady, State: b.state, Status: func() any { return b.Status() }, API: b.api, Log: b.log,
		Events: b.trace, Letters: kept{b.box, b.pusher},
	})
	if err != nil {
		return err
	}
	return b.admin.Listen()
}

// Run attaches to the server and delivers until ctx ends; then it stops reading,
// gives the lanes [outbox] shutdown_timeout to deliver what waits, and closes
// everything. It returns nil after an orderly stop.
func (a *App) Run(ctx context.Context) error {
	a.announce()
	// The parts stop one after another: first the link, then the lanes, last the
	// admin listener, so that the end can be watched.
	lanes, stopLanes := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLanes()
	listener, stopListener := context.WithCancel(context.WithoutCancel(ctx))
	defer stopListener()

	ctx, fail := context.WithCancel(ctx)
	defer fail()
	// A part that ends before it was told to ends the daemon.
	part := func(run func(context.Context) error, ctx context.Context) func() error {
		return func() error {
			defer fail()
			return run(ctx)
		}
	}
	var parts errgroup.Group
	parts.Go(part(a.pusher.Run, lanes))
	if a.pushing.users != nil {
		parts.Go(part(a.pushing.users.Run, lanes))
	}
	if a.pushing.devices != nil {
		parts.Go(part(a.pushing.devices.Run, lanes))
	}
	if a.admin != nil {
		parts.Go(part(a.admin.Run, listener))
	}
	if a.control != nil {
		parts.Go(part(a.control.Run, listener))
	}
	parts.Go(part(a.watch.Run, ctx))
	a.open(func(d *destination) {
		parts.Go(func() error { d.prepare(ctx, a.log); return nil })
	})
	err := a.runLink(ctx)

	a.open(nil)
	drain, cancel := context.WithTimeout(lanes, a.cfg().Outbox.ShutdownTimeout)
	a.pusher.Drain(drain)
	cancel()
	stopLanes()
	stopListener()
	err = errors.Join(err, parts.Wait(), a.closeAll())
	if err == nil {
		a.log.Info("stopped")
	}
	return err
}

// flushTimeout bounds what keeps the link from the next instance at an orderly end.
const flushTimeout = 3 * time.Second

// runLink runs the link, where several instances share the outbox only while it
// is this one's turn.
func (a *App) runLink(ctx context.Context) error {
	e, ok := a.box.(outbox.Elector)
	if !ok {
		return a.link.Run(ctx)
	}
	return e.Lead(ctx, func(turn context.Context) error {
		err := a.lead(turn)
		if ctx.Err() != nil {
			// An orderly end: what has come is kept before another instance gets the link.
			flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
			defer cancel()
			a.pusher.Flush(flushing)
		}
		a.pusher.Withdraw()
		return err
	})
}

// announce says in one line each what this instance is about to do.
func (a *App) announce() {
	cfg := a.cfg()
	a.log.Info("starting", "component", cfg.Component.Name, "server", cfg.Component.Address,
		"hosts", cfg.General.Hosts, "forwarders", cfg.Component.Forwarders, "backends", a.backends.names())
	if a.admin != nil {
		a.log.Info("admin listening", "address", a.admin.Addr().String())
	}
}

// AdminAddr returns the address of the admin listener, nil if there is none.
func (a *App) AdminAddr() net.Addr {
	if a.admin == nil {
		return nil
	}
	return a.admin.Addr()
}

// Status is what the running daemon says about itself.
type Status struct {
	Component component.Status `json:"component"`
	Pusher    pusher.Status    `json:"pusher"`
	// Cluster is there when several instances can share the outbox.
	Cluster *outbox.Standing `json:"cluster,omitempty"`
}

// Status returns a snapshot without secrets and without content of messages.
func (a *App) Status() Status {
	return Status{Component: a.link.Status(), Pusher: a.pusher.Status(), Cluster: a.standing()}
}

// standing is nil when there is only this instance.
func (a *App) standing() *outbox.Standing {
	e, ok := a.box.(outbox.Elector)
	if !ok {
		return nil
	}
	s := e.Standing()
	return &s
}

// state is what /readyz says when there is nothing to complain of.
func (a *App) state() string {
	if s := a.standing(); s != nil && !s.Leading {
		return "standby: " + s.Leader + " holds the link to the XMPP server"
	}
	return "ready"
}

// notReady lists why events cannot be taken at the moment.
func (a *App) notReady() []string {
	var reasons []string
	switch s := a.standing(); {
	case s == nil || s.Leading:
		if !a.link.Connected() {
			reasons = append(reasons, "not connected to the XMPP server")
		}
		for _, alert := range a.link.Status().Alerts {
			if !alert.Partial {
				reasons = append(reasons, alert.Text)
			}
		}
	case s.Leader == "":
		reasons = append(reasons, "no instance holds the link to the XMPP server")
	}
	if err := a.pusher.Healthy(); err != nil {
		reasons = append(reasons, err.Error())
	}
	return reasons
}

// close undoes what New has done before it failed.
func (a *App) close() error {
	var err error
	if a.control != nil {
		err = a.control.Close()
	}
	return errors.Join(err, a.closeAll())
}

// closeAll closes the backends and then what they use.
func (a *App) closeAll() error {
	var errs []error
	for _, b := range a.backends.all() {
		if err := b.Close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: close: %w", b.Name(), err))
		}
	}
	errs = append(errs, a.pushing.close())
	if a.box != nil {
		errs = append(errs, a.box.Close())
	}
	return errors.Join(errs...)
}
