// Package shorten delivers events that a service finds too large with the end of their body cut
// off.
package shorten

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/internal/finding"
)

// most is how often an event is cut and tried again.
const most = 20

// Backend is another backend that shortens what its service refuses as too large. An event
// loses its packet, which has the body too, then as much of the body as needed, and its
// metadata say so (backends.TruncatedKey).
type Backend struct {
	backends.Backend
	cut atomic.Uint64
}

var (
	_ backends.Backend   = (*Backend)(nil)
	_ backends.Preparing = (*Backend)(nil)
	_ backends.Counting  = (*Backend)(nil)
	_ backends.Probing   = (*Backend)(nil)
)

// New returns a backend that publishes through b, which it owns.
func New(b backends.Backend) *Backend { return &Backend{Backend: b} }

// Publish implements backends.Backend.
func (b *Backend) Publish(ctx context.Context, batch []event.Event) []error {
	errs := b.Backend.Publish(ctx, batch)
	for i, err := range errs {
		if errors.Is(err, backends.ErrTooLarge) {
			errs[i] = b.shorten(ctx, batch[i], err)
		}
	}
	return errs
}

// shorten publishes e, which was refused with err, with less and less of its body.
func (b *Backend) shorten(ctx context.Context, e event.Event, err error) error {
	body := e.Body
	first := err
	e.Packet, e.Metadata = "", maps.Clone(e.Metadata)
	if e.Metadata == nil {
		e.Metadata = event.Metadata{}
	}
	e.Metadata[backends.TruncatedKey] = true
	for tried := range most {
		if tried > 0 {
			if e.Body == "" {
				break
			}
			e.Body = strings.ToValidUTF8(body[:kept(len(e.Body), err, tried)], "")
		}
		if err = b.Backend.Publish(ctx, []event.Event{e})[0]; !errors.Is(err, backends.ErrTooLarge) {
			if err == nil {
				b.cut.Add(1)
			}
			return err
		}
	}
	return fmt.Errorf("%w; even without its body", first)
}

// kept is how many of length bytes of a body are tried next. Without a limit that the backend
// knows it is the half. Else it is their share of the limit, and then less by what is too
// much, which is enough since no form has a byte of the body in less than one.
func kept(length int, err error, tried int) int {
	var large *backends.TooLargeError
	switch {
	case !errors.As(err, &large) || large.Limit <= 0 || large.Size <= large.Limit:
		return length / 2
	case tried == 1:
		return int(int64(length) * int64(large.Limit) / int64(large.Size))
	}
	return max(length-(large.Size-large.Limit), 0)
}

// Prepare implements backends.Preparing.
func (b *Backend) Prepare(ctx context.Context) error {
	if p, ok := b.Backend.(backends.Preparing); ok {
		return p.Prepare(ctx)
	}
	return nil
}

// Counts implements backends.Counting: what the other one counts, and the bodies that were cut.
func (b *Backend) Counts() map[string]uint64 {
	counts := map[string]uint64{}
	if c, ok := b.Backend.(backends.Counting); ok {
		counts = c.Counts()
	}
	counts["bodies_cut"] = b.cut.Load()
	return counts
}

// Probe implements backends.Probing.
func (b *Backend) Probe(ctx context.Context) []finding.Finding {
	return backends.Probe(ctx, b.Backend)
}
