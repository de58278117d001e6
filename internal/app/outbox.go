package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/internal/control"
	"eventpusher/internal/finding"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

// openOutbox opens the outbox of the configuration for these backends and says
// what it has found.
func openOutbox(cfg config.Outbox, list []backends.Backend, log *slog.Logger) (*outbox.Embedded, outbox.Recovery, error) {
	names := make([]string, len(list))
	for i, b := range list {
		names[i] = b.Name()
	}
	box, found, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{
		Dir: cfg.Path, Backends: names, MaxSize: int64(cfg.MaxSize), SkipCorrupt: cfg.OnDamage == "skip", Log: log,
	})
	var locked *outbox.LockedError
	switch {
	case errors.As(err, &locked):
		return nil, found, err // says all there is to say
	case err != nil:
		return nil, found, fmt.Errorf("[outbox] path = %q: %w", cfg.Path, err)
	}
	log.Info("outbox opened", "path", cfg.Path, "found", found)
	return box, found, nil
}

// letters are the dead letters of the running daemon: those that no backend has
// seen pass the filters again when they are replayed.
type letters struct {
	box    *outbox.Embedded
	pusher *pusher.Pusher
}

func (l letters) DeadLetters() outbox.DeadLetters           { return l.box.DeadLetters() }
func (l letters) Replay(f outbox.LetterFilter) (int, error) { return l.pusher.Replay(f) }

// listenControl opens the socket for commands. Without it everything works but
// the commands that need the running instance, so that is no reason to stop.
func listenControl(dir string, box control.Box, doctor func(context.Context) []finding.Finding, log *slog.Logger) *control.Server {
	s, err := control.Listen(dir, box, doctor, log)
	if err != nil {
		log.Warn("commands such as dlq cannot reach this instance while it runs", "err", err,
			"remedy", "give [outbox] a path that is short and on a file system with sockets")
		return nil
	}
	return s
}
