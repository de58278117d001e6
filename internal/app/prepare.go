package app

import (
	"context"
	"log/slog"
	"time"

	"eventpusher/backends"
)

// The pauses between attempts to prepare a backend.
const (
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// prepare lets a backend connect before the first event, so that its exchanges
// are there to be bound and wrong credentials show at start. It tries until it
// has succeeded or ctx ends and delays nothing: deliveries do not wait for it.
func prepare(ctx context.Context, b backends.Backend, log *slog.Logger) {
	p, ok := b.(backends.Preparing)
	if !ok {
		return
	}
	said := ""
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := p.Prepare(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			said = text
			log.Warn("the backend is not ready yet, it will be tried again", "backend", b.Name(), "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
