package http

import (
	"context"
	"net/url"

	"eventpusher/backends"
	"eventpusher/internal/finding"
	"eventpusher/internal/receiver"
)

var _ backends.Probing = (*Backend)(nil)

// Probe implements backends.Probing. It connects as for an event and sends no
// request; see receiver.Receiver.
func (b *Backend) Probe(ctx context.Context) []finding.Finding {
	target, err := url.Parse(b.target)
	if err != nil { // New has parsed it
		return []finding.Finding{finding.Failf(b.name, "", "the address is no URL")}
	}
	return []finding.Finding{receiver.Receiver{
		Subject: b.name, Target: target, Dial: b.transfer.DialContext, TLS: b.transfer.TLSClientConfig, Proxy: b.transfer.Proxy,
		Rest: "whether it takes events shows with the first",
	}.Probe(ctx)}
}
