package cli

import (
	"context"
	"fmt"
	"io"

	"eventpusher/internal/control"
)

// runReload has the running instance read its configuration again.
func runReload(ctx context.Context, p Process, o options) error {
	silent := p
	silent.Stderr = io.Discard // the instance itself says what is wrong
	cfg := located(silent, o.config)
	c, err := control.Dial(ctx, cfg.Outbox.Path)
	if err != nil {
		return fmt.Errorf("no instance answers in the outbox %s, as [outbox] path has it; if one runs, call this in the directory in which it was started (%w)", cfg.Outbox.Path, err)
	}
	problems, err := c.Reload(ctx)
	for _, problem := range problems {
		fmt.Fprintln(p.Stderr, problem)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(p.Stdout, "reloaded")
	return nil
}
