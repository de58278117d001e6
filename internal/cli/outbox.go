package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"eventpusher/backends/catalog"
	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/control"
	"eventpusher/pusher/filter"
)

// configured returns the names of the backends of a configuration.
func configured(cfg *config.Config) ([]string, error) {
	built, err := catalog.Build(cfg, slog.New(slog.DiscardHandler), filter.CompileValue)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(built))
	for i, b := range built {
		names[i] = b.Name()
		_ = b.Close() // nothing is open yet
	}
	return names, nil
}

// unconfigured returns the configuration, and an error if it has the backend.
func unconfigured(p Process, o options, backend string) (*config.Config, []string, error) {
	cfg, err := mustLoad(p, o.config)
	if err != nil {
		return nil, nil, err
	}
	names, err := configured(cfg)
	if err == nil && slices.Contains(names, backend) {
		err = fmt.Errorf("%s is configured: take it out of the configuration first", backend)
	}
	return cfg, names, err
}

func runForget(ctx context.Context, p Process, o options) error {
	if len(o.args) != 1 {
		return usageError("say which: eventpusher outbox forget NAME")
	}
	name := o.args[0]
	cfg, _, err := unconfigured(p, o, name)
	if err != nil {
		return err
	}
	var waited int
	switch c, unreachable := control.Dial(ctx, cfg.Outbox.Path); {
	case unreachable == nil && o.dry:
		waited, err = c.Waiting(ctx, name)
	case unreachable == nil:
		waited, err = c.Forget(ctx, name)
	case o.dry:
		waited, err = app.Waiting(cfg.Outbox, name, lockTimeout)
	default:
		waited, err = app.Forget(ctx, cfg.Outbox, name, lockTimeout)
	}
	if err := keptNothing(ctx, cfg, name, err); err != nil {
		return err
	}
	if o.dry {
		fmt.Fprintf(p.Stdout, "%s would be given up with %s\n", plural(waited, app.Unit(cfg.Outbox)), name)
		return nil
	}
	fmt.Fprintf(p.Stdout, "%s is forgotten, with %s that waited for it\n", name, plural(waited, app.Unit(cfg.Outbox)))
	return nil
}

func runMove(ctx context.Context, p Process, o options) error {
	if len(o.args) != 2 {
		return usageError("say from where to where: eventpusher outbox move OLD NEW")
	}
	from, to := o.args[0], o.args[1]
	cfg, names, err := unconfigured(p, o, from)
	if err != nil {
		return err
	}
	if !slices.Contains(names, to) {
		return fmt.Errorf("%s is not configured: only a configured backend can take events; these are: %q", to, names)
	}
	var moved int
	if c, unreachable := control.Dial(ctx, cfg.Outbox.Path); unreachable == nil {
		moved, err = c.Move(ctx, from, to)
	} else {
		moved, err = app.Move(ctx, cfg.Outbox, from, to, lockTimeout)
	}
	if err := keptNothing(ctx, cfg, from, err); err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "moved %s from %s to %s\n", plural(moved, app.Unit(cfg.Outbox)), from, to)
	return nil
}

// keptNothing explains an error of a command about what waits for a backend.
func keptNothing(ctx context.Context, cfg *config.Config, backend string, err error) error {
	err = clarified(ctx, cfg, err)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the outbox in %s keeps nothing for %q", app.Place(cfg.Outbox), backend)
	}
	return err
}
