package cli

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"time"

	"eventpusher/internal/bench"
)

func benchFlags(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.config, "config", "", "use destinations and filters of this `file`, which get made-up messages; without it a built-in receiver")
	fs.Float64Var(&o.rate, "rate", 2000, "`messages` a second that the built-in server sends")
	fs.DurationVar(&o.duration, "duration", 10*time.Second, "how `long`, after a second of warming up")
}

// runBench measures the program on this machine.
func runBench(ctx context.Context, p Process, o options) error {
	if !(o.rate > 0 && o.rate <= 1e6) || o.duration < time.Second {
		return usageError("-rate is above 0 and at most 1000000, -duration at least 1s")
	}
	b := bench.Options{Rate: o.rate, Duration: o.duration, Version: p.Version, Out: p.Stdout, Log: slog.New(logHandler(p.Stderr, slog.LevelError, "text"))}
	if o.config != "" {
		cfg, err := mustLoad(p, o.config)
		if err != nil {
			return err
		}
		b.Config = cfg
		fmt.Fprintf(p.Stderr, "the destinations of %s get made-up messages of %d users for %v\n", o.config, bench.Users, o.duration)
	}
	return bench.Run(ctx, b)
}
