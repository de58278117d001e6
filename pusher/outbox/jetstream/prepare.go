package jetstream

import (
	"context"
	"time"

	"eventpusher/internal/natsrpc"
)

// prepare makes everything in JetStream.
func (e *Engine) prepare() error {
	ctx, cancel := context.WithTimeout(e.ctx, 6*requestTimeout)
	defer cancel()
	began := time.Now()
	l, err := openLayout(ctx, e.nc, e.js, &e.o, true)
	if err != nil {
		return err
	}
	if err := e.announce(ctx); err != nil {
		return err
	}
	m, seq, err := l.register(ctx, e.o.Partitions, e.o.Backends)
	if err != nil {
		return err
	}
	if err := e.writer.load(ctx, l); err != nil {
		return err
	}
	e.log.Info("outbox opened", "prefix", e.o.Prefix, "server", e.nc.ConnectedUrlRedacted(), "version", e.nc.ConnectedServerVersion(),
		"partitions", m.Partitions, "replicas", e.o.Replicas, "took", time.Since(began).Round(time.Millisecond))
	if n := int(e.nc.MaxPayload()) - headroom; n < 1<<20-headroom {
		e.log.Warn("NATS takes only small messages: larger events become dead letters", "max_event_bytes", n, "remedy", "raise max_payload of nats-server")
	}
	e.openMu.Lock()
	if err = e.enter(ctx, l, m, seq); err == nil {
		e.set.Store(l)
	}
	e.openMu.Unlock()
	if err != nil {
		return err
	}
	e.connection.Set(nil)
	close(e.isSet)
	e.running.Go(func() { e.cluster.Run(e.ctx) })
	e.running.Go(e.listen)
	e.join()
	return nil
}

// keepPreparing goes on until prepare has succeeded or never will.
func (e *Engine) keepPreparing() {
	said := ""
	for {
		if pause(e.ctx, time.Second/2); e.ctx.Err() != nil {
			return
		}
		if !e.nc.IsConnected() {
			continue
		}
		switch err := e.prepare(); {
		case err == nil || e.ctx.Err() != nil:
			return
		case !natsrpc.Temporary(err):
			e.never.Store(&err)
			e.connection.Set(err)
			close(e.isSet)
			return
		case err.Error() != said:
			said = err.Error()
			e.connection.Set(err)
			e.log.Warn("the outbox is not ready yet; it will be tried again", "err", err)
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// signal wakes whoever waits on a channel of capacity one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
