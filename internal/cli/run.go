package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"eventpusher/admin"
	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/control"
	"eventpusher/internal/logline"
	"eventpusher/internal/tracing"
)

func runDaemon(ctx context.Context, p Process, o options) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // before all else, since it would end the program
	defer signal.Stop(hangups)
	cfg, problems := loadHere(p, o.config)
	if cfg == nil {
		for _, problem := range problems {
			fmt.Fprintln(p.Stderr, problem)
		}
		summarise(p.Stderr, o.config, problems)
		return errFailed
	}
	var now changeable
	now.set(cfg, cfg)
	lines := now.log(p.Stderr, cfg.Log.Format)
	defer lines.Flush()
	log := slog.New(lines)
	defer logLibraries(log)()
	app.LogProblems(log, problems)
	spans, err := tracing.Start(ctx, os.Getenv, p.Version, log)
	if err != nil {
		return err
	}
	defer closeSpans(spans, log)
	a, err := app.New(cfg, app.Options{
		Spans: spans,
		Log:   log, HeldLines: lines.Held, Redact: now.redact, Version: p.Version,
		Load: func() (*config.Config, []config.Problem) { return load(p, o.config) }, Changing: now.set,
	})
	if err != nil {
		return err
	}
	var answering sync.WaitGroup
	defer answering.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	answering.Go(func() { answerHangups(ctx, hangups, a) })
	answering.Go(func() { notifySystemd(ctx, func() { a.Status() }, log) })
	return a.Run(ctx)
}

// closeSpans exports what is left.
func closeSpans(spans *tracing.Tracer, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := spans.Close(ctx); err != nil {
		log.Warn("the last traces are not exported", "err", err)
	}
}

// answerHangups reloads at each SIGHUP until ctx ends.
func answerHangups(ctx context.Context, hangups <-chan os.Signal, a *app.App) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			_, _ = a.Reload(ctx) // the log says how it went
		}
	}
}

// changeable is what a reload changes of the log. It is safe for concurrent use.
type changeable struct {
	levels  logline.Levels
	secrets atomic.Pointer[[2]func(string) string]
}

// set makes fresh the configuration that holds. Secrets of the old one stay hidden, since calls
// that are under way may fail with them.
func (c *changeable) set(old, fresh *config.Config) {
	c.secrets.Store(&[2]func(string) string{old.Redactor(), fresh.Redactor()})
	c.levels.Set(fresh.Log.Level, fresh.Log.Packages())
}

// log writes to w in the form that [log] asks for, within the bounds of the log.
func (c *changeable) log(w io.Writer, format string) *logline.Handler {
	return logline.New(c.levels.Filter(logHandler(w, &c.levels, format)), c.redact)
}

// redact returns a text without the secrets of the configuration.
func (c *changeable) redact(text string) string {
	both := c.secrets.Load()
	return both[1](both[0](text))
}

// logger writes warnings and errors to w.
func logger(w io.Writer) *slog.Logger {
	return slog.New(logHandler(w, slog.LevelWarn, "text"))
}

// logHandler writes to w in the form that [log] asks for.
func logHandler(w io.Writer, level slog.Leveler, format string) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}

func runHealth(ctx context.Context, p Process, o options) error {
	cfg := located(p, o.config) // a broken file says nothing about the instance that runs
	if cfg.Admin.Listen != "" {
		if err := admin.Probe(ctx, cfg.Admin.Listen, "/readyz", cfg.Admin.Token); err != nil {
			return err
		}
	} else if err := askReady(ctx, cfg.Outbox.Path); err != nil {
		return err
	}
	fmt.Fprintln(p.Stdout, "ready")
	return nil
}

// askReady asks the instance of an outbox, which has no admin listener, whether it is ready.
func askReady(ctx context.Context, outbox string) error {
	c, err := control.Dial(ctx, outbox)
	if err != nil {
		return fmt.Errorf("no instance answers in the outbox %s, and there is no admin listener to ask: set listen = \"127.0.0.1:9090\" in [admin], or call this where the instance was started", outbox)
	}
	reasons, err := c.NotReady(ctx)
	if err == nil && len(reasons) > 0 {
		err = fmt.Errorf("not ready: %s", strings.Join(reasons, "; "))
	}
	return err
}
