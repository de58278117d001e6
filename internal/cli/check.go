package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"eventpusher/config"
	"eventpusher/internal/app"
)

// load reads the configuration and checks all that can be checked without
// connecting to anything. The configuration is nil if a problem is an error.
func load(p Process, path string) (*config.Config, []config.Problem) {
	cfg, problems := config.Examine(path, p.Env, p.Own...)
	if cfg == nil {
		return nil, problems
	}
	problems = append(problems, app.Check(cfg, problems)...)
	config.Sort(problems)
	if count(problems, config.Error) > 0 {
		return nil, problems
	}
	return cfg, problems
}

// loadHere is load, and looks at this machine too.
func loadHere(p Process, path string) (*config.Config, []config.Problem) {
	cfg, problems := load(p, path)
	if cfg != nil {
		problems = append(problems, cfg.Outbox.Exposed()...)
		config.Sort(problems)
	}
	return cfg, problems
}

// mustLoad reads the configuration for a command that only needs to find its way;
// it prints the errors if there are any.
func mustLoad(p Process, path string) (*config.Config, error) {
	cfg, problems := config.Load(path, p.Env, p.Own...)
	if cfg != nil {
		return cfg, nil
	}
	for _, problem := range problems {
		if problem.Severity == config.Error {
			fmt.Fprintln(p.Stderr, problem)
		}
	}
	return nil, errFailed
}

// located returns a configuration that is good enough to find the running instance and its
// outbox: one with errors will do, and of a file that is no TOML what the environment says, and
// the defaults. What is wrong is told.
func located(p Process, path string) *config.Config {
	cfg, problems := config.Examine(path, p.Env, p.Own...)
	for _, problem := range problems {
		if problem.Severity == config.Error {
			fmt.Fprintln(p.Stderr, problem)
		}
	}
	if cfg == nil {
		cfg, _ = config.Examine(os.DevNull, p.Env, p.Own...)
		fmt.Fprintf(p.Stderr, "%s cannot be read: the running instance is looked for in the outbox %s\n", path, cfg.Outbox.Path)
	}
	return cfg
}

func runCheck(_ context.Context, p Process, o options) error {
	switch len(o.args) {
	case 0:
	case 1:
		o.config = o.args[0]
	default:
		return usageError("name one file")
	}
	cfg, problems := loadHere(p, o.config)
	for _, problem := range problems {
		fmt.Fprintln(p.Stdout, problem)
	}
	summarise(p.Stdout, o.config, problems)
	if cfg == nil {
		return errFailed
	}
	return nil
}

func summarise(w io.Writer, path string, problems []config.Problem) {
	errs, warnings := count(problems, config.Error), count(problems, config.Warning)
	if errs == 0 && warnings == 0 {
		fmt.Fprintf(w, "%s is fine\n", path)
		return
	}
	fmt.Fprintf(w, "%s: %s, %s\n", path, plural(errs, "error"), plural(warnings, "warning"))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func count(problems []config.Problem, severity config.Severity) int {
	n := 0
	for _, p := range problems {
		if p.Severity == severity {
			n++
		}
	}
	return n
}
