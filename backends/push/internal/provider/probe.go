package provider

import (
	"context"
	"errors"
	"net/url"
	"time"

	"eventpusher/internal/finding"
)

// ProbeTimeout bounds a request that only asks whether others would be taken, so that
// there is time left to find out why there is no answer.
const ProbeTimeout = 5 * time.Second

// Unanswered says why a request to the provider of that name had no answer, as far as
// another connection tells.
func (c *Client) Unanswered(ctx context.Context, subject, name string, target *url.URL, why error) finding.Finding {
	const remedy = "let this machine reach it: look at the firewall, the DNS and, where they are set, url and cacertfile"
	if errors.Is(ctx.Err(), context.Canceled) {
		return finding.Warnf(subject, "", "%s was not asked: %v", name, ctx.Err())
	}
	if f := c.Probe(ctx, subject, target); f.Level == finding.Fail {
		return finding.Failf(subject, remedy, "%s: %s", name, f.Text)
	}
	return finding.Failf(subject, remedy, "%s (%s) takes connections but does not answer: %v", name, target.Host, why)
}
