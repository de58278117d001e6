package cli

import (
	"context"
	"flag"

	"eventpusher/internal/demo"
)

func demoFlags(fs *flag.FlagSet, o *options) {
	fs.IntVar(&o.count, "count", 0, "stop after `N` delivered events; 0 goes on until Ctrl-C")
	fs.Float64Var(&o.rate, "rate", 2, "`things` that the scripted users do a second, up to 1000")
}

func runDemo(ctx context.Context, p Process, o options) error {
	if o.count < 0 {
		return usageError("-count must not be negative")
	}
	if !(o.rate > 0 && o.rate <= 1000) {
		return usageError("-rate must be above 0 and at most 1000")
	}
	return demo.Run(ctx, demo.Options{
		Count: o.count, Rate: o.rate, Version: p.Version,
		Out: p.Stdout, Log: logger(p.Stderr),
	})
}
