package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/internal/doctor"
	"eventpusher/pusher/outbox"
)

// missing says where there is no outbox and what to do. Called in another directory than
// the instance was, a command finds nothing: that must not look like an outbox with
// nothing in it, least of all to a script that goes by the exit code.
func missing(ctx context.Context, cfg *config.Config) error {
	path := cfg.Outbox.Path
	absolute, err := filepath.Abs(path)
	if err != nil { // the working directory is no more
		absolute = path
	}
	var text strings.Builder
	fmt.Fprintf(&text, "there is no outbox in %s: ", absolute)
	if filepath.IsAbs(path) {
		text.WriteString("run has never been started, or [outbox] path is another one")
	} else {
		text.WriteString("[outbox] path is relative to the directory in which run was started; call it there")
	}
	if doctor.Answers(ctx, cfg.Admin.Listen) {
		fmt.Fprintf(&text, " (an instance is running: something listens at [admin] listen = %q)", cfg.Admin.Listen)
	}
	return errors.New(text.String())
}

// clarified returns missing for an error that is due to there being no outbox, else the
// error.
func clarified(ctx context.Context, cfg *config.Config, err error) error {
	if !errors.Is(err, fs.ErrNotExist) || cfg.Outbox.Engine == "nats" || outbox.Exists(cfg.Outbox.Path) {
		return err
	}
	return missing(ctx, cfg)
}

// neverPush reports whether the error of opening the registrations is that there are none
// in an outbox that there is: its instances had no push.
func neverPush(cfg *config.Config, err error) bool {
	file, ok := errors.AsType[*fs.PathError](err)
	return ok && errors.Is(err, fs.ErrNotExist) && filepath.Base(file.Path) == store.RegistrationsFile && outbox.Exists(cfg.Outbox.Path)
}
