package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/control"
	"eventpusher/internal/jid"
	"eventpusher/pusher/outbox"
)

// letterFlags select dead letters.
type letterFlags struct {
	backend, reason, event string
	since, until           string
	limit                  int
	all, json              bool
}

// reasons are those of all dead letters.
var reasons = [...]string{"permanent", "too_large", "gone", outbox.ReasonMaxAge, outbox.ReasonParkedFull, "filter", "when", outbox.ReasonUndecodable}

func selectFlags(fs *flag.FlagSet, o *options) {
	configFlag(fs, o)
	fs.StringVar(&o.letters.backend, "backend", "", "only those of the backend of this `name`; "+strconv.Quote(outbox.NoBackend)+" for those that no backend has seen")
	fs.StringVar(&o.letters.reason, "reason", "", "only those with this `reason`: "+strings.Join(reasons[:], ", "))
	fs.StringVar(&o.letters.event, "event", "", "only those of the event with this `id`")
	fs.StringVar(&o.letters.since, "since", "", "only those that died at this `time` or later: 2026-01-31T12:00:00Z, or 24h for a day ago")
	fs.StringVar(&o.letters.until, "until", "", "only those that died before this `time`")
}

func jsonFlag(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.letters.json, "json", false, "one JSON object a line")
}

func listFlags(fs *flag.FlagSet, o *options) {
	selectFlags(fs, o)
	jsonFlag(fs, o)
	fs.IntVar(&o.letters.limit, "limit", 0, "at most `N`; 0 lists all")
}

func dryFlag(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.dry, "dry-run", false, "change nothing, and say how much would be")
}

func forgetFlags(fs *flag.FlagSet, o *options) {
	configFlag(fs, o)
	dryFlag(fs, o)
}

// selected counts what a filter selects, page by page.
func selected(letters control.Letters, f outbox.LetterFilter) (n int, err error) {
	for f.Limit = page; ; {
		list, err := letters.List(f)
		if n += len(list); err != nil || len(list) < page {
			return n, err
		}
		f.After = list[page-1].ID
	}
}

func showFlags(fs *flag.FlagSet, o *options) {
	configFlag(fs, o)
	jsonFlag(fs, o)
}

func changeFlags(fs *flag.FlagSet, o *options) {
	selectFlags(fs, o)
	fs.BoolVar(&o.letters.all, "all", false, "all of them")
	dryFlag(fs, o)
}

// filter reads the flags that select; now is what a duration counts back from.
func (l letterFlags) filter(now time.Time) (outbox.LetterFilter, error) {
	f := outbox.LetterFilter{Backend: l.backend, Reason: l.reason, EventID: l.event, Limit: l.limit}
	var err error
	if f.Since, err = moment("-since", l.since, now); err != nil {
		return f, err
	}
	if f.Until, err = moment("-until", l.until, now); err != nil {
		return f, err
	}
	if l.reason != "" && !slices.Contains(reasons[:], l.reason) {
		return f, usageError(fmt.Sprintf("-reason: there is none called %q; they are %s", l.reason, strings.Join(reasons[:], ", ")))
	}
	if l.limit < 0 {
		return f, usageError("-limit must not be negative")
	}
	return f, nil
}

func moment(name, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usageError(fmt.Sprintf("%s: %q is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 24h", name, text))
	}
	return t, nil
}

// numbers reads the dead letters' numbers among the arguments.
func numbers(args []string) ([]uint64, error) {
	ids := make([]uint64, 0, len(args))
	for _, a := range args {
		id, err := strconv.ParseUint(a, 10, 64)
		if err != nil || id == 0 {
			return nil, usageError(fmt.Sprintf("%q is not the number of a dead letter; `eventpusher dlq list` shows them", a))
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// page is how many dead letters are read at once: each comes with its stanza.
const page = 500

func runLettersList(ctx context.Context, p Process, o options) error {
	f, err := o.letters.filter(time.Now())
	if err != nil {
		return err
	}
	letters, closeBox, err := openLetters(ctx, located(p, o.config))
	if err != nil {
		return err
	}
	return errors.Join(printLetters(p.Stdout, letters, f, o.letters.json), closeBox())
}

// printLetters prints what the filter selects, page by page.
func printLetters(w io.Writer, letters control.Letters, f outbox.LetterFilter, asJSON bool) error {
	out := json.NewEncoder(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	left := f.Limit
	found := 0
	for {
		f.Limit = page
		if left > 0 {
			f.Limit = min(page, left-found)
		}
		list, err := letters.List(f)
		if err != nil {
			return err
		}
		for i := range list {
			d := &list[i]
			f.After = d.ID
			if asJSON {
				if err := out.Encode(d); err != nil {
					return err
				}
				continue
			}
			if found == 0 && i == 0 {
				fmt.Fprintln(table, "NUMBER\tDIED\tBACKEND\tREASON\tATTEMPTS\tEVENT\tWHAT\tFROM\tTO\tERROR")
			}
			backend := d.Backend
			if backend == "" {
				backend = outbox.NoBackend
			}
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.Died.UTC().Format(time.RFC3339), backend, d.Reason, d.Attempts,
				d.Event.ID, what(d), who(d.Event.From), who(d.Event.To), d.Err)
		}
		found += len(list)
		if len(list) < f.Limit || left > 0 && found == left {
			break
		}
	}
	if found == 0 && !asJSON {
		all, err := selected(letters, outbox.LetterFilter{})
		if err != nil {
			return err
		}
		switch all {
		case 0:
			fmt.Fprintln(w, "no dead letters")
		case 1:
			fmt.Fprintln(w, "there is one dead letter, and it does not match")
		default:
			fmt.Fprintf(w, "none of the %d dead letters matches\n", all)
		}
	}
	return table.Flush()
}

// what says in a word or two what the event of a dead letter is.
func what(d *outbox.DeadLetter) string {
	s := d.Event.Kind.String() + " " + d.Event.Type
	if dir := d.Event.Direction.String(); dir != "" {
		s += " " + dir
	}
	return s
}

// who is a JID without its resource, as one word of a line: users choose their names,
// which may hold what moves the cursor of a terminal.
func who(j jid.JID) string {
	if j == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) && !unicode.IsSpace(r) {
			return r
		}
		return '?'
	}, j.Bare().String())
}

func runLettersShow(ctx context.Context, p Process, o options) error {
	ids, err := numbers(o.args)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return usageError("say which: eventpusher dlq show NUMBER...")
	}
	letters, closeBox, err := openLetters(ctx, located(p, o.config))
	if err != nil {
		return err
	}
	out := json.NewEncoder(p.Stdout)
	out.SetEscapeHTML(false)
	if !o.letters.json {
		out.SetIndent("", "  ")
	}
	var errs []error
	for _, id := range ids {
		d, err := letters.Get(id)
		if err == nil {
			err = out.Encode(d)
		}
		errs = append(errs, err)
	}
	return errors.Join(errors.Join(errs...), closeBox())
}

func runLettersReplay(ctx context.Context, p Process, o options) error {
	return changeLetters(ctx, p, o, "replayed", control.Letters.Replay)
}

func runLettersDrop(ctx context.Context, p Process, o options) error {
	return changeLetters(ctx, p, o, "dropped", control.Letters.Drop)
}

// changeLetters does something to the letters that numbers or flags select, but
// to all of them only when that is said.
func changeLetters(ctx context.Context, p Process, o options, done string, change func(control.Letters, outbox.LetterFilter) (int, error)) error {
	ids, err := numbers(o.args)
	if err != nil {
		return err
	}
	f, err := o.letters.filter(time.Now())
	if err != nil {
		return err
	}
	if len(ids) == 0 && f == (outbox.LetterFilter{}) && !o.letters.all {
		return usageError("say which: numbers, flags that select, or -all")
	}
	letters, closeBox, err := openLetters(ctx, located(p, o.config))
	if err != nil {
		return err
	}
	if o.dry {
		change, done = selected, "would be "+done
	}
	total := 0
	if len(ids) == 0 {
		total, err = change(letters, f)
	}
	for _, id := range ids {
		f.ID = id
		n, one := change(letters, f)
		if one == nil && n == 0 {
			one = fmt.Errorf("number %d is not among the dead letters, or the flags do not select it", id)
		}
		total += n
		err = errors.Join(err, one)
	}
	if total == 0 && err == nil {
		err = unknownBackend(p, o, letters)
	}
	if err == nil || total > 0 {
		fmt.Fprintf(p.Stdout, "%s %s\n", plural(total, "dead letter"), done)
	}
	return errors.Join(err, closeBox())
}

// unknownBackend is an error if flags name a backend that is neither configured nor has dead
// letters.
func unknownBackend(p Process, o options, letters control.Letters) error {
	name := o.letters.backend
	if name == "" || name == outbox.NoBackend {
		return nil
	}
	if n, err := selected(letters, outbox.LetterFilter{Backend: name}); n > 0 || err != nil {
		return err // other flags leave them out
	}
	cfg, err := mustLoad(Process{Env: p.Env, Own: p.Own, Stderr: io.Discard}, o.config)
	if err != nil { // what is wrong with it has been told
		return fmt.Errorf("there is no dead letter of %q, and whether a backend is called so can be said only once %s has no error", name, o.config)
	}
	names, err := configured(cfg)
	if err != nil || slices.Contains(names, name) {
		return err
	}
	return fmt.Errorf("no backend is called %q, and there is no dead letter of one; these are configured: %s", name, strings.Join(names, ", "))
}

// lockTimeout is how long a command waits for another one to be done with the
// outbox.
const lockTimeout = 3 * time.Second

// openLetters reaches the dead letters through the running instance, or opens
// them itself when none runs.
func openLetters(ctx context.Context, cfg *config.Config) (control.Letters, func() error, error) {
	if c, err := control.Dial(ctx, cfg.Outbox.Path); err == nil {
		return c, func() error { return nil }, nil
	}
	letters, closeBox, err := app.OpenLetters(ctx, cfg.Outbox, lockTimeout)
	return letters, closeBox, clarified(ctx, cfg, err)
}
