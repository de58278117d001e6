package push

import (
	"context"

	"eventpusher/backends"
	"eventpusher/internal/finding"
)

var _ backends.Probing = (*Backend)(nil)

// Probe implements backends.Probing: it counts the registrations, if a store is
// attached, and probes the gateway and the providers of our own devices. It asks no push service of the network: which
// there are is up to the users.
func (b *Backend) Probe(ctx context.Context) []finding.Finding {
	var list []finding.Finding
	if b.store != nil {
		list = append(list, b.probeStore(ctx))
	}
	if len(b.o.Virtual) > 0 && b.o.Gateway == nil {
		list = append(list, finding.Failf(Name, "add [modules.mod_push_service_mongoosepush]", "nobody takes the notifications for virtual_pubsub_hosts"))
	}
	if p, ok := b.o.Gateway.(interface {
		Probe(ctx context.Context, subject string) []finding.Finding
	}); ok {
		list = append(list, p.Probe(ctx, Name)...)
	}
	if b.o.Devices != nil {
		list = append(list, b.o.Devices.Probe(ctx, Name)...)
	}
	return list
}

func (b *Backend) probeStore(ctx context.Context) finding.Finding {
	n, err := b.store.Count(ctx)
	switch {
	case err != nil:
		return finding.Failf(Name, "start it, or correct its address and rights; until then users are told to try again later, and notifications wait",
			"the registrations cannot be read: %v", err)
	case n == 1:
		return finding.Okf(Name, "1 registration")
	}
	return finding.Okf(Name, "%d registrations", n)
}
