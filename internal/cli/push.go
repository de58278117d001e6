package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"eventpusher/backends/catalog"
	"eventpusher/backends/push"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/control"
	"eventpusher/internal/jid"
	"eventpusher/pusher/filter"
)

func explainFlags(fs *flag.FlagSet, o *options) {
	configFlag(fs, o)
	jsonFlag(fs, o)
}

// pushTimeout bounds a command about push; a database may be slow.
const pushTimeout = 30 * time.Second

func runExplain(ctx context.Context, p Process, o options) error {
	if len(o.args) != 1 {
		return usageError("say who: eventpusher push explain USER")
	}
	user, cfg, err := pushUser(p, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	e, running, err := explain(ctx, cfg, user)
	if err != nil {
		return err
	}
	if o.letters.json {
		return json.NewEncoder(p.Stdout).Encode(e)
	}
	return printExplanation(p.Stdout, &e, cfg, running)
}

// explain asks the running instance, or looks into the store when none runs.
func explain(ctx context.Context, cfg *config.Config, user jid.JID) (e push.Explanation, running bool, err error) {
	if c, err := control.Dial(ctx, cfg.Outbox.Path); err == nil {
		e, err := c.Explain(ctx, user)
		return e, true, err
	}
	kept, err := app.InspectRegistrations(cfg)
	if neverPush(cfg, err) {
		return push.Explanation{User: user, Registrations: []push.Registered{}}, false, nil
	}
	if err != nil {
		return e, false, clarified(ctx, cfg, err)
	}
	b, closeAll, err := pushBackend(cfg, kept)
	if err != nil {
		return e, false, err
	}
	closeDevices, err := attachDevices(cfg, b)
	if err != nil {
		return e, false, errors.Join(err, closeAll())
	}
	e, err = b.Explain(ctx, user)
	e.Decisions = nil // nobody has been asked
	return e, false, errors.Join(err, closeAll(), closeDevices())
}

// attachDevices lets the backend look into the devices that are registered here, if there
// are any.
func attachDevices(cfg *config.Config, b *push.Backend) (closeStore func() error, err error) {
	none := func() error { return nil }
	delivery := b.Devices()
	if delivery == nil {
		return none, nil
	}
	kept, err := app.InspectDevices(cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return nil, err
	}
	delivery.Attach(kept)
	return kept.Close, nil
}

// pushBackend returns the backend of the configuration with that store, which can be
// asked and publishes nothing.
func pushBackend(cfg *config.Config, kept store.Registrations) (b *push.Backend, closeAll func() error, err error) {
	built, err := catalog.Build(cfg, slog.New(slog.DiscardHandler), filter.CompileValue)
	if err != nil {
		return nil, nil, errors.Join(err, kept.Close())
	}
	for _, one := range built {
		if found, ok := one.(*push.Backend); ok {
			b = found
			b.Attach(kept, nil, nil)
		}
	}
	return b, func() error {
		for _, one := range built {
			_ = one.Close() // nothing is open
		}
		return kept.Close()
	}, nil
}

// pushUser returns the bare JID that the first argument names, and the configuration,
// which has push.
func pushUser(p Process, o options) (jid.JID, *config.Config, error) {
	user := jid.Prepare(o.args[0]).Bare()
	if user.Local() == "" || user.Domain() == "" {
		return "", nil, usageError(fmt.Sprintf("%q is no user: write it as alice@example.org", o.args[0]))
	}
	cfg, err := mustLoad(p, o.config)
	if err != nil {
		return "", nil, err
	}
	if cfg.Pusher.Push == nil {
		return "", nil, errors.New("push is not configured: there is no [modules.mod_event_pusher.push]")
	}
	return user, cfg, nil
}

// printExplanation prints e for people.
func printExplanation(w io.Writer, e *push.Explanation, cfg *config.Config, running bool) error {
	fmt.Fprintf(w, "%s has %s\n", e.User, plural(len(e.Registrations), "registration"))
	if !jid.NewDomains(cfg.Served()...).Of(e.User) {
		fmt.Fprintf(w, "%s is none of [general] hosts, so there are no messages to this user\n", e.User.Domain())
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, r := range e.Registrations {
		if i == 0 {
			fmt.Fprintln(table, "SERVICE\tNODE\tGOES BY\tOPTIONS")
		}
		options := printable(strings.Join(r.Options, ", "))
		if len(r.Lacks) > 0 {
			options += " (lacks " + strings.Join(r.Lacks, ", ") + ")"
		}
		if len(r.Rules) > 0 {
			options += " (rules: " + strings.Join(r.Rules, "; ") + ")"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.Service, printable(r.Node), r.By, options)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(e.Devices) > 0 {
		if err := printDevices(w, e); err != nil {
			return err
		}
	}
	if !running {
		fmt.Fprintln(w, "no instance runs; what was decided about messages only a running one knows")
		return nil
	}
	if len(e.Feeds) == 0 {
		fmt.Fprintf(w, "no feed of %s was heard yet: without one there are no messages to push\n", e.User.Domain())
	} else {
		feeds := make([]string, 0, len(e.Feeds))
		for class, dialect := range e.Feeds {
			feeds = append(feeds, class+" by "+dialect)
		}
		slices.Sort(feeds)
		fmt.Fprintf(w, "feeds of %s: %s\n", e.User.Domain(), strings.Join(feeds, ", "))
	}
	if e.Silent > 0 {
		fmt.Fprintf(w, "%s did not answer: what was decided there is missing\n", plural(e.Silent, "other instance"))
	}
	if len(e.Decisions) == 0 {
		fmt.Fprintln(w, "no decision about a message to this user is remembered")
		return nil
	}
	fmt.Fprintln(table, "DECIDED\tEVENT\tSERVICE\tNODE\tTIMES\tOUTCOME\tWHICH MEANS")
	for _, d := range e.Decisions {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", d.Time.Format(time.RFC3339), d.EventID, printable(d.Service), printable(d.Node),
			max(d.Count, 1), d.Outcome, journal.Meaning(d.Outcome))
	}
	return table.Flush()
}

// printDevices prints the devices that are registered here.
func printDevices(w io.Writer, e *push.Explanation) error {
	fmt.Fprintf(w, "%s has %s registered here\n", e.User, plural(len(e.Devices), "device"))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEVICE\tAPP\tKIND\tCREATED\tREGISTERED\tUSED")
	for _, d := range e.Devices {
		used := "never"
		if !d.Used.IsZero() {
			used = d.Used.UTC().Format(time.DateOnly)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", d.Node, printable(d.App), d.Kind, d.Created.UTC().Format(time.RFC3339), d.Registered.UTC().Format(time.RFC3339), used)
	}
	return table.Flush()
}

// printable makes what users chose fit for one cell of a table.
func printable(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func runDisable(ctx context.Context, p Process, o options) error {
	if len(o.args) < 1 || len(o.args) > 3 {
		return usageError("say whose: eventpusher push disable USER [SERVICE [NODE]]")
	}
	user, cfg, err := pushUser(p, o)
	if err != nil {
		return err
	}
	var service jid.JID
	var node string
	if len(o.args) > 1 {
		if service = jid.Prepare(o.args[1]).Bare(); service == "" {
			return usageError("the service must not be empty")
		}
	}
	if len(o.args) > 2 {
		if node = o.args[2]; node == "" {
			return usageError("the node must not be empty")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	n, err := remove(ctx, cfg, logger(p.Stderr), user, service, node)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "%s removed\n", plural(n, "registration"))
	return nil
}

// remove has the running instance remove registrations, or does it when none runs.
func remove(ctx context.Context, cfg *config.Config, log *slog.Logger, user, service jid.JID, node string) (int, error) {
	if c, err := control.Dial(ctx, cfg.Outbox.Path); err == nil {
		return c.Remove(ctx, user, service, node)
	}
	kept, err := app.InspectRegistrations(cfg)
	switch {
	case neverPush(cfg, err):
		return 0, nil
	case err != nil:
		return 0, clarified(ctx, cfg, err)
	}
	if err := kept.Close(); err != nil {
		return 0, err
	}
	if kept, err = app.OpenRegistrations(cfg, log); err != nil {
		return 0, err
	}
	b, closeAll, err := pushBackend(cfg, kept)
	if err != nil {
		return 0, err
	}
	n, err := b.Remove(ctx, user, service, node)
	return n, errors.Join(err, closeAll())
}
