package http

import (
	"context"

	"eventpusher/backends"
	"eventpusher/internal/finding"
	"eventpusher/internal/receiver"
)

var _ backends.Probing = (*Backend)(nil)

// Probe implements backends.Probing. It connects as for an event and sends no
// request; see receiver.Receiver.
func (b *Backend) Probe(ctx context.Context) []finding.Finding {
	return []finding.Finding{receiver.Receiver{
		Subject: b.name, Target: b.target, Dial: b.transfer.DialContext, TLS: b.tls, Proxy: b.transfer.Proxy,
		Rest: "whether it takes events shows with the first",
	}.Probe(ctx)}
}
