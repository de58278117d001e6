package devices

import (
	"context"
	"fmt"
	"sync"

	"eventpusher/internal/finding"
)

// prober is implemented by the senders that can ask their provider, without notifying
// anybody, whether it would take notifications.
type prober interface {
	Probe(ctx context.Context, subject string) []finding.Finding
}

// Probe asks the providers of all applications at once and says, about subject, what they
// answer, and how many devices there are if a store is attached. It disturbs nobody.
func (d *Delivery) Probe(ctx context.Context, subject string) []finding.Finding {
	type one struct {
		app   string
		asked prober
		found []finding.Finding
	}
	var asked []*one
	for i := range d.o.Apps {
		for _, kind := range kindOrder {
			if p, ok := d.o.Apps[i].senders[kind].(prober); ok {
				asked = append(asked, &one{app: d.o.Apps[i].Name, asked: p})
			}
		}
	}
	var all sync.WaitGroup
	for _, o := range asked {
		all.Go(func() { o.found = o.asked.Probe(ctx, subject) })
	}
	var list []finding.Finding
	if d.store != nil {
		list = append(list, d.count(ctx, subject))
	}
	all.Wait()
	for _, o := range asked {
		for _, f := range o.found {
			f.Text = fmt.Sprintf("application %s: %s", o.app, f.Text)
			list = append(list, f)
		}
	}
	return list
}

func (d *Delivery) count(ctx context.Context, subject string) finding.Finding {
	switch n, err := d.store.Count(ctx); {
	case err != nil:
		return finding.Failf(subject, "restore the file or, with a shared outbox, see that NATS runs and lets us read the bucket", "the devices cannot be read: %v", err)
	case n == 1:
		return finding.Okf(subject, "1 device")
	default:
		return finding.Okf(subject, "%d devices", n)
	}
}
