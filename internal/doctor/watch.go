package doctor

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/component"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/finding"
)

// Watch examines the link of a running instance without being asked, since an operator
// calls doctor only after something was missed. It examines once some time after each
// connection, then again and again. Each finding that is not OK is logged with its
// remedy when it appears, and counted in a metric as long as it lasts.
type Watch struct {
	link  *component.Link
	cfg   func() *config.Config
	log   *slog.Logger
	found *prometheus.GaugeVec

	// after is how long a connection must have lived, so that each feed had its chance
	// to be heard; every is the time between two examinations of one connection.
	after, every time.Duration
	logged       map[finding.Finding]bool // what the examination before has found, without its text
}

// NewWatch returns a watch for the link, with the configuration that holds, and registers its metric with reg.
func NewWatch(link *component.Link, cfg func() *config.Config, reg prometheus.Registerer, log *slog.Logger) *Watch {
	found := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "eventpusher_findings",
		Help: "What the last examination of the link and its feeds has found that is not OK. eventpusher doctor lists it.",
	}, []string{"subject", "level"})
	reg.MustRegister(found)
	return &Watch{link: link, cfg: cfg, log: log, found: found, after: trust.Patience + time.Second, every: time.Minute}
}

// Run examines until ctx ends; it returns nil.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(min(w.after, time.Second))
	defer tick.Stop()
	var connection, last time.Time // since when the examined connection is there; the last examination
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s := w.link.Status()
		if s.State != component.Connected || time.Since(s.Since) < w.after || s.Since.Equal(connection) && time.Since(last) < w.every {
			continue
		}
		w.examine(ctx, time.Since(s.Since))
		connection, last = s.Since, time.Now()
	}
}

// examine looks at the link once and tells what is new. If the connection ends
// meanwhile, the findings tell nothing about the next one.
func (w *Watch) examine(ctx context.Context, listened time.Duration) {
	cfg := w.cfg()
	list := Server(ctx, w.link, cfg, listened, nil)
	if cfg.Pusher.Push != nil {
		list = append(list, Push(ctx, w.link, cfg, nil)...)
	}
	if ctx.Err() != nil || !w.link.Connected() {
		return
	}
	w.found.Reset()
	levels := map[finding.Level]slog.Level{finding.Warn: slog.LevelWarn, finding.Fail: slog.LevelError}
	for _, subject := range append([]string{subjectServer}, known(cfg, w.link.Status().Hosts)...) {
		for level := range levels {
			w.found.WithLabelValues(subject, string(level)).Set(0)
		}
	}
	logged := make(map[finding.Finding]bool)
	for _, f := range list {
		level, bad := levels[f.Level]
		if !bad {
			continue
		}
		w.found.WithLabelValues(f.Subject, string(f.Level)).Inc()
		key := f
		key.Text = "" // it may hold times
		logged[key] = true
		if !w.logged[key] {
			w.log.Log(ctx, level, "doctor: something is wrong with the link or a feed", "subject", f.Subject, "finding", f.Text, "remedy", f.Remedy)
		}
	}
	for f := range w.logged {
		if !logged[f] {
			w.log.Info("doctor: this is over", "subject", f.Subject, "remedy", f.Remedy)
		}
	}
	w.logged = logged
}
