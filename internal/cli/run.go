package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"eventpusher/admin"
	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/logline"
)

func runDaemon(ctx context.Context, p Process, o options) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // before all else, since it would end the program
	defer signal.Stop(hangups)
	cfg, problems := load(p, o.config)
	if cfg == nil {
		for _, problem := range problems {
			fmt.Fprintln(p.Stderr, problem)
		}
		summarise(p.Stderr, o.config, problems)
		return errFailed
	}
	log, lines := daemonLog(p.Stderr, cfg)
	defer logLibraries(log)()
	for _, problem := range problems {
		if problem.Severity == config.Warning {
			log.Warn("configuration", "key", problem.Path, "problem", problem.Text, "remedy", problem.Remedy)
		} else {
			log.Info("configuration", "key", problem.Path, "note", problem.Text)
		}
	}
	var answering sync.WaitGroup
	defer answering.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	answering.Go(func() { answerHangups(ctx, hangups, log) })
	a, err := app.New(cfg, app.Options{Log: log, HeldLines: lines.Held, Redact: cfg.Redactor(), Version: p.Version})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// answerHangups says, until ctx ends, what a SIGHUP does not do.
func answerHangups(ctx context.Context, hangups <-chan os.Signal, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			log.Warn("SIGHUP: the configuration is not read again while the program runs",
				"remedy", "examine it with: eventpusher check, then restart eventpusher")
		}
	}
}

// daemonLog writes to w what [log] asks for, within the bounds of the log.
func daemonLog(w io.Writer, cfg *config.Config) (*slog.Logger, *logline.Handler) {
	lines := logline.New(logHandler(w, cfg.Log), cfg.Redactor())
	return slog.New(lines), lines
}

// logger writes warnings and errors to w.
func logger(w io.Writer) *slog.Logger {
	return slog.New(logHandler(w, config.Log{Level: slog.LevelWarn}))
}

// logHandler writes to w as [log] asks for.
func logHandler(w io.Writer, cfg config.Log) slog.Handler {
	o := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}

func runHealth(ctx context.Context, p Process, o options) error {
	cfg, err := mustLoad(p, o.config)
	if err != nil {
		return err
	}
	if cfg.Admin.Listen == "" {
		return errors.New(`there is no admin listener to ask; set listen = "127.0.0.1:9090" in [admin]`)
	}
	if err := admin.Probe(ctx, cfg.Admin.Listen, "/readyz", cfg.Admin.Token); err != nil {
		return err
	}
	fmt.Fprintln(p.Stdout, "ready")
	return nil
}
