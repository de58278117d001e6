package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/control"
	"eventpusher/internal/doctor"
	"eventpusher/internal/finding"
)

func doctorFlags(fs *flag.FlagSet, o *options) {
	configFlag(fs, o)
	jsonFlag(fs, o)
}

// runDoctor has the running instance examine itself; without one it looks itself.
func runDoctor(ctx context.Context, p Process, o options) error {
	cfg, problems := loadHere(p, o.config)
	list := configFindings(o.config, cfg, problems)
	if cfg != nil {
		ctx, cancel := context.WithTimeout(ctx, doctor.Limit)
		defer cancel()
		redact := cfg.Redactor()
		for _, f := range examine(ctx, cfg, p.Version) {
			f.Text = redact(f.Text) // what a service says may repeat what it was told
			list = append(list, f)
		}
	}
	if err := printFindings(p.Stdout, list, o.letters.json); err != nil {
		return err
	}
	if finding.Failed(list) {
		return errFailed
	}
	return nil
}

func examine(ctx context.Context, cfg *config.Config, version string) []finding.Finding {
	c, err := control.Dial(ctx, cfg.Outbox.Path)
	if err != nil {
		return doctor.Alone(ctx, cfg, version, func(ctx context.Context) (doctor.Lister, func() error, error) {
			return app.OpenLetters(ctx, cfg.Outbox, lockTimeout)
		}, func() (store.Registrations, error) { return app.InspectRegistrations(cfg) })
	}
	list, err := c.Doctor(ctx)
	if err != nil {
		return []finding.Finding{finding.Failf("instance", "look into its log; an older version cannot be asked", "an instance runs and does not answer: %v", err)}
	}
	return list
}

// configFindings are the problems of the configuration in the form of findings.
func configFindings(path string, cfg *config.Config, problems []config.Problem) []finding.Finding {
	levels := map[config.Severity]finding.Level{config.Note: finding.OK, config.Warning: finding.Warn, config.Error: finding.Fail}
	var list []finding.Finding
	for _, problem := range problems {
		text := problem.Text
		if problem.Path != "" {
			text = problem.Path + ": " + text
		}
		list = append(list, finding.Finding{Level: levels[problem.Severity], Subject: "config", Text: text, Remedy: problem.Remedy})
	}
	if cfg == nil {
		return list
	}
	return append(list, finding.Okf("config", "%s can be used", path))
}

func printFindings(w io.Writer, list []finding.Finding, asJSON bool) error {
	out := json.NewEncoder(w)
	for _, f := range list {
		var err error
		if asJSON {
			err = out.Encode(f)
		} else {
			_, err = fmt.Fprintln(w, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
