package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"eventpusher/backends/push/journal"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/control"
	"eventpusher/pusher"
	"eventpusher/pusher/trace"
)

func tailFlags(fs *flag.FlagSet, o *options) {
	configFlag(fs, o)
	jsonFlag(fs, o)
	fs.StringVar(&o.when, "when", "", "show only events that fulfil this `expression`, such as 'event.kind == \"chat\"'")
	fs.BoolVar(&o.texts, "bodies", false, "show what messages say, too; with -json also the stanzas")
}

// running returns the configuration and a client of the instance that runs with it.
func running(ctx context.Context, p Process, file string) (*config.Config, *control.Client, error) {
	cfg := located(p, file)
	c, err := control.Dial(ctx, cfg.Outbox.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("no instance runs with the outbox %s: start it with eventpusher run, or name its file with -config", cfg.Outbox.Path)
	}
	return cfg, c, nil
}

func runTail(ctx context.Context, p Process, o options) error {
	_, c, err := running(ctx, p, o.config)
	if err != nil {
		return err
	}
	out := json.NewEncoder(p.Stdout)
	out.SetEscapeHTML(false)
	return c.Tail(ctx, o.when, o.texts, func(e *trace.Event) error {
		if o.letters.json {
			return out.Encode(e)
		}
		body := ""
		if o.texts && e.Event.HasBody {
			body = "  " + strconv.Quote(e.Event.Body)
		}
		_, err := fmt.Fprintf(p.Stdout, "%s  %-19s  %s  %s%s\n", e.Came.Format("15:04:05.000"), e.Event.Sort(), parties(&e.Event), fateOf(e), body)
		return err
	})
}

// parties says who an event is about.
func parties(e *event.Event) string {
	if e.To == "" {
		return who(e.From)
	}
	return who(e.From) + " -> " + who(e.To)
}

// fateOf says in a few words what has become of an event before any delivery.
func fateOf(e *trace.Event) string {
	switch e.Fate {
	case trace.Dropped:
		return fmt.Sprintf("dropped by the filter %q", e.By)
	case trace.Failed:
		return fmt.Sprintf("dropped, since the filter %q has failed", e.By)
	case trace.Dead:
		if e.By == "" {
			return "dead letter: the stanza cannot be read"
		}
		return fmt.Sprintf("dead letter: the filter %q has failed", e.By)
	case trace.Unwanted:
		return "no destination wants it"
	case trace.NotAccepted:
		return "not accepted by the outbox"
	}
	var to []string
	for _, d := range e.Destinations {
		if d.State != trace.Declined && d.State != trace.WhenFailed && d.State != trace.NotSelected {
			to = append(to, d.Destination)
		}
	}
	return "to " + strings.Join(to, ", ")
}

func runLife(ctx context.Context, p Process, o options) error {
	if len(o.args) != 1 {
		return usageError("say which: eventpusher explain ID, of an event or as the client gave it to the stanza")
	}
	id := o.args[0]
	life, running, err := lifeOf(ctx, p, o.config, id)
	if err != nil {
		return err
	}
	if o.letters.json {
		return json.NewEncoder(p.Stdout).Encode(life)
	}
	if err := printLife(p.Stdout, &life); err != nil {
		return err
	}
	if len(life.Events)+len(life.Passed)+len(life.Letters) > 0 {
		return nil
	}
	fmt.Fprintf(p.Stderr, "nothing is known of %q: there is no dead letter of it, and %s\n", id, remembers(&life, running))
	return errFailed
}

// lifeOf asks the running instance, or looks for dead letters if none runs.
func lifeOf(ctx context.Context, p Process, file, id string) (life control.Life, running bool, err error) {
	cfg := located(p, file)
	if c, unreachable := control.Dial(ctx, cfg.Outbox.Path); unreachable == nil {
		life, err = c.Life(ctx, id)
		return life, true, err
	}
	letters, closeBox, err := openLetters(ctx, cfg)
	if err != nil {
		return life, false, err
	}
	life.Letters, err = pusher.LettersOf(letters.List, id)
	return life, false, errors.Join(err, closeBox())
}

// remembers says how far back can be looked.
func remembers(life *control.Life, running bool) string {
	switch {
	case !running:
		return "no instance runs, which could tell more"
	case life.Remembered.IsZero():
		return "the running instance has seen no event since its start; one from before may wait in the outbox, behind others"
	}
	return fmt.Sprintf("the running instance remembers the last %d events at most, here since %s; an older one may wait in the outbox, behind others", trace.MaxEvents, life.Remembered.Format(time.RFC3339))
}

// printLife prints what is known, for people.
func printLife(w io.Writer, life *control.Life) error {
	for i := range life.Passed {
		one := &life.Passed[i]
		fmt.Fprintf(w, "%s  stanza %s from %s to %s, by %s: no event, since %s\n", one.Time.Format("15:04:05.000"), strconv.Quote(one.StanzaID),
			printable(one.From), printable(one.To), one.Feed, one.Why)
	}
	for i := range life.Events {
		if err := printEvent(w, &life.Events[i], life.Push); err != nil {
			return err
		}
	}
	for _, d := range life.Letters {
		fmt.Fprintf(w, "dead letter %d of %s, event %s: %s, after %d attempts, %s: %s\n", d.ID, cmp.Or(d.Backend, "the filters"), d.Event.ID, d.Reason,
			d.Attempts, d.Died.UTC().Format(time.RFC3339), d.Err)
	}
	return nil
}

func printEvent(w io.Writer, e *trace.Event, pushes []journal.Decision) error {
	stanza := ""
	if e.Event.StanzaID != "" {
		stanza = ", stanza " + strconv.Quote(e.Event.StanzaID)
	}
	fmt.Fprintf(w, "%s  event %s: %s, %s%s\n", e.Came.Format("15:04:05.000"), e.Event.ID, e.Event.Sort(), parties(&e.Event), stanza)
	if e.Event.Dialect != "" {
		fmt.Fprintf(w, "  reported by %s for %s\n", e.Event.Dialect, e.Event.Host)
	}
	switch {
	case e.By != "" || e.Fate != trace.Kept:
		fmt.Fprintf(w, "  %s\n", fateOf(e))
		if e.Error != "" {
			fmt.Fprintf(w, "  %s\n", e.Error)
		}
	case len(e.Filters) > 0:
		fmt.Fprintf(w, "  kept by all filters: %s\n", strings.Join(e.Filters, ", "))
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, d := range e.Destinations {
		fmt.Fprintf(table, "  %s\t%s\n", d.Destination, stateOf(&d))
		for _, a := range d.Attempts {
			fmt.Fprintf(table, "  \t  %s  %s\n", a.Time.Format("15:04:05.000"), printable(a.Error))
		}
	}
	for _, d := range pushes {
		if d.EventID == e.Event.ID {
			fmt.Fprintf(table, "  push\t  %s  %s\n", d.Time.Format("15:04:05.000"), journal.Meaning(d.Outcome))
		}
	}
	return table.Flush()
}

// stateOf says what has become of an event at a destination.
func stateOf(d *trace.Delivery) string {
	at := d.Time.Format("15:04:05.000")
	switch d.State {
	case trace.Delivered:
		return fmt.Sprintf("delivered at %s, attempt %d", at, d.Tries)
	case trace.Waiting:
		return "waits"
	case trace.Retrying:
		return fmt.Sprintf("waits for attempt %d; the last one was at %s", d.Tries+1, at)
	case trace.Parked:
		return fmt.Sprintf("parked, since its conversation keeps failing; attempt %d was at %s", d.Tries, at)
	case trace.Buried:
		return "became a dead letter at " + at
	case trace.Declined:
		return "its when does not hold"
	case trace.WhenFailed:
		return "its when has failed: dead letter"
	case trace.NotSelected:
		return "its events do not include it"
	case trace.GivenUp:
		return "given up: the outbox was full"
	}
	return "does not wait any more: another instance may have delivered it, or it was moved or forgotten"
}
