package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/catalog"
	"eventpusher/backends/push"
	"eventpusher/event"
	"eventpusher/internal/bench"
	"eventpusher/pusher/filter"
)

// sendTimeout bounds one delivery.
const sendTimeout = time.Minute

func sendFlags(fs *flag.FlagSet, o *options) {
	configFlag(fs, o)
	fs.StringVar(&o.to, "to", "", "`name` of the destination")
	fs.StringVar(&o.kind, "kind", "", "`sort` of event, such as chat.in; default: the first one that the destination gets")
}

// runSend delivers one made-up event, past outbox, filters and when, and says what the
// service has answered.
func runSend(ctx context.Context, p Process, o options) error {
	cfg, err := mustLoad(p, o.config)
	if err != nil {
		return err
	}
	built, err := catalog.Build(cfg, slog.New(slog.DiscardHandler), filter.CompileValue)
	if err != nil {
		return err
	}
	var names []string
	var chosen backends.Backend
	for _, b := range built {
		defer b.Close()
		names = append(names, b.Name())
		if b.Name() == o.to {
			chosen = b
		}
	}
	if chosen == nil {
		return usageError(fmt.Sprintf("-to names no destination; these are configured: %s", strings.Join(names, ", ")))
	}
	if _, isPush := chosen.(*push.Backend); isPush {
		return errors.New("push delivers to devices of users only: see push explain")
	}
	e, err := sampleFor(chosen, o.kind)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "sending a made-up event of %s, id %s, with the metadata %s\n", e.Sort(), e.ID, bench.SampleKey)
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	redact := cfg.Redactor()
	ctx = backends.WithAnswer(ctx, func(line string) { fmt.Fprintf(p.Stdout, "  %s\n", redact(line)) })
	began := time.Now()
	err = chosen.Publish(ctx, []event.Event{e})[0]
	took := time.Since(began).Round(100 * time.Microsecond)
	if err != nil {
		return fmt.Errorf("%s has not taken it after %v: %s%s", o.to, took, redact(err.Error()), consequence(err))
	}
	fmt.Fprintf(p.Stdout, "%s has taken it, in %v\n", o.to, took)
	return nil
}

// consequence says what would become of a real event.
func consequence(err error) string {
	switch backends.Reason(err) {
	case "permanent", "too_large", "gone":
		return "; a real event would become a dead letter"
	}
	return "; a real event would be kept and tried again"
}

// sampleFor returns an event that the backend wants.
func sampleFor(b backends.Backend, sort string) (event.Event, error) {
	if sort == "" {
		sort = "all"
	}
	sorts, err := event.ParseSelection([]string{sort})
	if err != nil {
		return event.Event{}, usageError(fmt.Sprintf("-kind: %v; these are: %s", err, strings.Join(event.SortNames(), ", ")))
	}
	samples := sorts.Samples()
	i := slices.IndexFunc(samples, func(e event.Event) bool { return b.Wants(&e) })
	if i < 0 {
		return event.Event{}, fmt.Errorf("%s gets no events of %s by its configuration", b.Name(), sort)
	}
	e := samples[i]
	var id [16]byte
	rand.Read(id[:])
	e.ID, e.Time = hex.EncodeToString(id[:]), time.Now().UTC()
	e.Metadata = event.Metadata{bench.SampleKey: true}
	return e, nil
}
