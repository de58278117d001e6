package backends

import "context"

type epochKey struct{}

// WithEpoch returns a context for Publish that has an epoch.
func WithEpoch(ctx context.Context, epoch uint64) context.Context {
	return context.WithValue(ctx, epochKey{}, epoch)
}

// Epoch returns the epoch of a call of Publish, 0 if there is one instance only. It grows
// whenever another instance begins to deliver the events of a conversation. So a receiver
// that remembers the largest epoch of each conversation can refuse what an instance sends
// that was paused, and does not know yet that another one delivers in its place.
func Epoch(ctx context.Context) uint64 {
	epoch, _ := ctx.Value(epochKey{}).(uint64)
	return epoch
}
