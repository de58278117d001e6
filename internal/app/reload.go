package app

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"eventpusher/backends/catalog"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/pusher"
)

// reloadMetrics count reloads.
type reloadMetrics struct {
	done, refused prometheus.Counter
	differs       prometheus.Gauge
}

func newReloadMetrics(reg prometheus.Registerer) reloadMetrics {
	f := promauto.With(reg)
	counts := f.NewCounterVec(prometheus.CounterOpts{
		Name: "eventpusher_reloads_total",
		Help: "Reloads of the configuration: done, or refused, which changes nothing.",
	}, []string{"outcome"})
	return reloadMetrics{
		done: counts.WithLabelValues("done"), refused: counts.WithLabelValues("refused"),
		differs: f.NewGauge(prometheus.GaugeOpts{
			Name: "eventpusher_reload_refused",
			Help: "1 if the latest reload was refused, so that another configuration holds than the file has; else 0.",
		}),
	}
}

// ErrRefused says that a configuration is not used, and that the one from before holds.
var ErrRefused = errors.New("the new configuration is refused, and the one from before holds")

// Reload reads the configuration again. It swaps filters, conditions, destinations and the level
// of the log in one step, then the hosts, for which the link is set up anew. It returns the problems of the configuration, as check does. With an
// error, which wraps ErrRefused, nothing has changed. What has to be restarted for is such an error.
//
// It blocks until calls to destinations that were changed or removed have ended, at most for
// [outbox] shutdown_timeout, or until ctx ends: then they are cancelled. It is safe for
// concurrent use, and waits for Run to begin.
func (a *App) Reload(ctx context.Context) ([]config.Problem, error) {
	select {
	case <-a.opened:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a.reloading.Lock()
	defer a.reloading.Unlock()
	problems, err := a.reload(ctx)
	if errors.Is(err, ErrRefused) {
		a.reloads.refused.Inc()
		a.reloads.differs.Set(1)
		a.log.Error("reload: nothing has changed", "err", err)
	} else {
		a.reloads.done.Inc()
		a.reloads.differs.Set(0)
	}
	LogProblems(a.log, problems)
	return problems, err
}

func (a *App) reload(ctx context.Context) ([]config.Problem, error) {
	switch {
	case a.options.Load == nil:
		return nil, fmt.Errorf("%w: it comes from no file", ErrRefused)
	case a.launch == nil:
		return nil, fmt.Errorf("%w: eventpusher is stopping", ErrRefused)
	}
	cfg, problems := a.options.Load()
	if cfg != nil {
		if fixed := unchangeable(a.cfg(), cfg, a.started); len(fixed) > 0 {
			cfg, problems = nil, append(problems, fixed...)
			config.Sort(problems)
		}
	}
	if cfg == nil {
		return problems, fmt.Errorf("%w: %s", ErrRefused, countErrors(problems))
	}
	return problems, a.change(ctx, cfg)
}

func countErrors(problems []config.Problem) string {
	n := 0
	for _, p := range problems {
		if p.Severity == config.Error {
			n++
		}
	}
	if n == 1 {
		return "it has an error"
	}
	return fmt.Sprintf("it has %d errors", n)
}

// started is the push part and the files of the sections that cannot change, as they were when eventpusher
// started. The names of the files are those of the configuration, which cannot change either.
type started struct {
	push         *catalog.Part // nil: there is none
	link, outbox catalog.Files
}

func newStarted(cfg *config.Config, parts []catalog.Part) (s started) {
	if i := slices.IndexFunc(parts, func(p catalog.Part) bool { return p.IsPush() }); i >= 0 {
		s.push = &parts[i]
	}
	s.link = catalog.NewFiles([]*config.TLS{cfg.Component.TLS})
	if cfg.Outbox.Engine == engineNATS { // which reads its credentials at each connection
		s.outbox = catalog.NewFiles([]*config.TLS{cfg.Outbox.NATS.TLS})
	}
	return s
}

// unchangeable names what differs and needs a restart.
func unchangeable(old, fresh *config.Config, was started) (list []config.Problem) {
	paths := slices.Concat(differences("component", withoutHosts(old.Component), withoutHosts(fresh.Component)),
		differences("outbox", old.Outbox, fresh.Outbox), differences("admin", old.Admin, fresh.Admin))
	if old.Log.Format != fresh.Log.Format {
		paths = append(paths, "log.format")
	}
	if old.Pusher.Follow != fresh.Pusher.Follow {
		paths = append(paths, "modules.mod_event_pusher.follow")
	}
	add := func(path, what string) {
		list = append(list, config.Problem{
			Severity: config.Error, Path: path, Text: what + "has changed, and cannot change while eventpusher runs", Remedy: "restart eventpusher, or write what was there before",
		})
	}
	files := func(path string, names []string) {
		for _, name := range names {
			add(path, "its file "+name+" ")
		}
	}
	is := newStarted(fresh, catalog.Parts(fresh))
	files("component.tls", is.link.Changed(was.link))
	files("outbox.nats.tls", is.outbox.Changed(was.outbox))
	switch {
	case was.push != nil && is.push != nil && len(is.push.Files.Changed(was.push.Files)) > 0:
		files(catalog.PushPath, is.push.Files.Changed(was.push.Files))
	case (was.push == nil) != (is.push == nil) || is.push != nil && !is.push.Same(was.push):
		paths = append(paths, catalog.PushPath)
	}
	for _, path := range paths {
		add(path, "")
	}
	return list
}

// differences returns the paths of the keys of a section that differ. Its fields are called as its keys
// are, in the spelling of Go.
func differences(section string, old, fresh any) (paths []string) {
	was, is := reflect.ValueOf(old), reflect.ValueOf(fresh)
	for i := range was.NumField() {
		if !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()) {
			key := wordEnd.ReplaceAllString(was.Type().Field(i).Name, "${1}${3}_${2}${4}")
			paths = append(paths, section+"."+strings.ToLower(key))
		}
	}
	return paths
}

// wordEnd is where a word of a field's name ends.
var wordEnd = regexp.MustCompile("([a-z])([A-Z])|([A-Z])([A-Z][a-z])")

// withoutHosts leaves out what can change.
func withoutHosts(c config.Component) config.Component {
	c.Forwarders, c.MUCHosts = nil, nil
	return c
}

func servedBy(cfg *config.Config) trust.Served {
	return trust.Served{Hosts: cfg.General.Hosts, MUCHosts: cfg.Component.MUCHosts, Forwarders: cfg.Component.Forwarders}
}

// change makes cfg the configuration that holds. a.reloading is held.
func (a *App) change(ctx context.Context, cfg *config.Config) error {
	began := time.Now()
	chain, conditions, err := a.judges(cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	next, fresh, err := a.plan(catalog.Parts(cfg))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, errors.Join(err, closeAll(fresh)))
	}
	grace, cancel := context.WithTimeout(ctx, a.cfg().Outbox.ShutdownTimeout)
	defer cancel()
	old := a.cfg()
	a.changing(old, cfg)
	err = a.pusher.Change(grace, chain, backendsOf(next), conditions)
	if err != nil && !errors.Is(err, pusher.ErrChanged) {
		a.changing(cfg, old)
		return fmt.Errorf("%w: %w", ErrRefused, errors.Join(err, closeAll(fresh)))
	}
	if err != nil {
		a.log.Error("reload: the outbox makes trouble", "err", err)
	}
	before := a.backends.get()
	a.backends.set(next)
	a.running.Store(cfg)
	for _, d := range fresh {
		a.launch(d)
	}
	// After the filters, so that no event of a new host passes those from before.
	if served := servedBy(cfg); !reflect.DeepEqual(served, servedBy(old)) {
		a.pushing.serve(cfg)
		a.sink.served.Store(&served)
		a.link.Serve(served)
	}
	var gone []*destination
	for _, d := range before {
		if slices.Contains(next, d) {
			continue
		}
		gone = append(gone, d)
		if err := d.retire(); err != nil {
			a.log.Warn("a destination did not close in order", "backend", d.part.Name, "err", err)
		}
	}
	a.log.Info("reload: the new configuration holds", "filters", len(cfg.Filters), "backends", namesOf(next),
		"new_or_changed", namesOf(fresh), "changed_or_removed", namesOf(gone), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (a *App) changing(old, fresh *config.Config) {
	if a.options.Changing != nil {
		a.options.Changing(old, fresh)
	}
}

// plan returns the destinations of parts, and those of them that had to be built. Those that stay the
// same are the ones that run.
func (a *App) plan(parts []catalog.Part) (next, fresh []*destination, err error) {
	now := a.backends.get()
	for _, part := range parts {
		if i := slices.IndexFunc(now, func(d *destination) bool { return d.part.Same(&part) }); i >= 0 {
			next = append(next, now[i])
			continue
		}
		d, fault := newDestination(part, a.log)
		if fault != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", part.Path, fault))
			continue
		}
		next, fresh = append(next, d), append(fresh, d)
	}
	return next, fresh, err
}

func closeAll(list []*destination) error {
	var errs []error
	for _, d := range list {
		errs = append(errs, d.backend.Close())
	}
	return errors.Join(errs...)
}

// open prepares all destinations by launch and allows reloads, until it is called with nil. It
// waits for a reload that is under way.
func (a *App) open(launch func(*destination)) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	a.launch = launch
	if launch == nil {
		return
	}
	for _, d := range a.backends.get() {
		launch(d)
	}
	close(a.opened)
}
