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
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"eventpusher/admin"
	"eventpusher/backends"
	"eventpusher/backends/catalog"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/internal/control"
	"eventpusher/internal/doctor"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
	"eventpusher/translator"
)

// Options are what the process gives to the daemon.
type Options struct {
	Log     *slog.Logger
	Version string
}

// App is the whole daemon. Its methods are safe for concurrent use.
type App struct {
	cfg      *config.Config
	log      *slog.Logger
	link     *component.Link
	watch    *doctor.Watch
	pusher   *pusher.Pusher
	backends []backends.Backend
	box      outbox.Outbox
	admin    *admin.Server   // nil without [admin] listen
	control  *control.Server // nil if its socket could not be made
	began    time.Time
	// registrar is nil without push.
	registrar *registrar
	// devices is nil where no application is configured.
	devices *deviceDesk
}

// New builds the daemon and opens the outbox. Nothing is dialled or listened on
// before Run but the admin listener, so that a taken port is an error at start.
func New(cfg *config.Config, o Options) (a *App, err error) {
	a = &App{cfg: cfg, log: o.Log, began: time.Now()}
	begun := a // an error is returned with nil
	defer func() {
		if err != nil {
			err = errors.Join(err, begun.close())
		}
	}()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(buildInfo(o.Version))

	filters, problems := filter.Compile(cfg.Filters)
	conditions, found := compileConditions(cfg)
	for _, p := range append(problems, found...) {
		if p.Severity == config.Error {
			return nil, errors.New(p.String())
		}
	}
	metrics := pusher.NewMetrics(registry)
	chain, err := filter.NewChain(filters, metrics.Filters(), o.Log)
	if err != nil {
		return nil, err
	}
	if a.backends, err = catalog.Build(cfg, o.Log); err != nil {
		return nil, err
	}
	box, opened, err := openOutbox(cfg, a.backends, o.Log)
	if err != nil {
		return nil, err
	}
	a.box = box
	tr := translator.New(translator.Options{
		Hosts: cfg.General.Hosts, MUCHosts: cfg.Component.MUCHosts, Component: cfg.Component.Name,
	})
	feed := &sink{translator: tr, box: a.box, crowd: crowd{log: o.Log}}
	a.pusher, err = pusher.New(pusher.Options{
		Feeds: feed, Chain: chain, Backends: a.backends, Conditions: conditions, Outbox: a.box, MaxAge: cfg.Outbox.MaxAge, Metrics: metrics, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	feed.pusher = a.pusher
	if e, ok := a.box.(outbox.Elector); ok {
		registry.MustRegister(newClusterCollector(e))
	}
	a.control = listenControl(cfg.Outbox.Path, kept{a.box, a.pusher}, a.examine, o.Log)
	registry.MustRegister(newTranslatorCollector(tr), newBackendCollector(a.backends), newOutboxCollector(box, opened))
	if a.registrar, err = newRegistrar(cfg, a.backends, a.pusher, o.Log); err != nil {
		return nil, err
	}
	var iqs []component.IQHandler
	if a.registrar != nil {
		iqs = a.registrar.handlers()
		if a.control != nil {
			a.control.HandlePush(a.registrar)
		}
		if a.devices, err = newDeviceDesk(cfg, a.registrar.push, a.pusher, o.Log); err != nil {
			return nil, err
		}
	}
	var api map[string]http.Handler
	if a.devices != nil {
		iqs, api = append(iqs, a.devices.handlers()...), a.devices.api()
	}
	a.link, err = component.New(cfg.Component, cfg.General.Hosts, component.Options{
		Sink: feed, IQ: iqs, Metrics: component.NewMetrics(registry), Log: o.Log, Version: o.Version,
	})
	if err != nil {
		return nil, err
	}
	a.watch = doctor.NewWatch(a.link, cfg, registry, o.Log)
	feed.link = a.link
	if a.registrar != nil {
		a.registrar.component = a.link
		if others, ok := a.box.(relay); ok {
			a.registrar.relay = others
			a.registrar.push.AttachUnread(a.registrar)
		}
	}
	if cfg.Admin.Listen != "" {
		a.admin, err = admin.New(cfg.Admin, admin.Options{
			Gatherer: registry, Ready: a.notReady, State: a.state, Status: func() any { return a.Status() }, API: api, Log: o.Log,
		})
		if err == nil {
			err = a.admin.Listen()
		}
		if err != nil {
			return nil, err
		}
	}
	return a, nil
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
	if a.registrar != nil {
		parts.Go(part(a.registrar.run, lanes))
	}
	if a.devices != nil {
		parts.Go(part(a.devices.run, lanes))
	}
	if a.admin != nil {
		parts.Go(part(a.admin.Run, listener))
	}
	if a.control != nil {
		parts.Go(part(a.control.Run, listener))
	}
	parts.Go(part(a.watch.Run, ctx))
	for _, b := range a.backends {
		parts.Go(func() error { prepare(ctx, b, a.log); return nil })
	}
	err := a.runLink(ctx)

	drain, cancel := context.WithTimeout(lanes, a.cfg.Outbox.ShutdownTimeout)
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
	names := make([]string, len(a.backends))
	for i, b := range a.backends {
		names[i] = b.Name()
	}
	a.log.Info("starting", "component", a.cfg.Component.Name, "server", a.cfg.Component.Address,
		"hosts", a.cfg.General.Hosts, "forwarders", a.cfg.Component.Forwarders, "backends", names)
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
	for _, b := range a.backends {
		if err := b.Close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: close: %w", b.Name(), err))
		}
	}
	if a.registrar != nil {
		errs = append(errs, a.registrar.Close())
	}
	if a.devices != nil {
		errs = append(errs, a.devices.Close())
	}
	if a.box != nil {
		errs = append(errs, a.box.Close())
	}
	return errors.Join(errs...)
}
