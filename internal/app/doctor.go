package app

import (
	"context"
	"slices"
	"time"

	"eventpusher/internal/doctor"
	"eventpusher/internal/finding"
)

// examine examines the running daemon and its surroundings. It publishes nothing and
// may be called at any time while Run runs.
func (a *App) examine(ctx context.Context) []finding.Finding {
	cfg := a.cfg()
	list := []finding.Finding{finding.Okf("instance", "runs since %s and answers for itself", a.began.UTC().Format(time.RFC3339)), doctor.Disk(cfg.Outbox)}
	if err := a.pusher.Healthy(); err != nil {
		list = append(list, finding.Failf("outbox", "see the log of the instance", "%v", err))
	}
	list = append(list, doctor.Waiting(a.pusher.Status(), a.box.DeadLetters())...)
	sinks := make(chan []finding.Finding, 1)
	go func() { sinks <- doctor.Sinks(ctx, a.backends.all()) }()
	server := doctor.Server(ctx, a.link, cfg, time.Since(a.began), nil)
	if cfg.Pusher.Push != nil {
		server = append(server, doctor.Push(ctx, a.link, cfg, nil)...)
	}
	return slices.Concat(list, server, <-sinks)
}
