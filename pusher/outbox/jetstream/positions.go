package jetstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/pusher/outbox"
)

// errDeposed says that another instance has written positions meanwhile.
var errDeposed = errors.New("outbox: another instance has taken over the feeds")

// positions are those of the feeds, in the state bucket. Each write names the
// revision that it replaces, so that an instance that does not know yet that it
// has lost the link cannot overwrite what its successor wrote.
type positions struct {
	known atomic.Pointer[[]outbox.Position] // what is kept, for who must not wait for a request

	mu       sync.Mutex        // held during requests
	kept     []outbox.Position // the one that moved last stands last
	revision uint64
	deposed  bool // by another instance, until seize
}

// load reads what is kept.
func (p *positions) load(ctx context.Context, l *layout) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.read(ctx, l)
	p.deposed = p.deposed && err != nil
	return err
}

// read returns who has written last.
func (p *positions) read(ctx context.Context, l *layout) (writer string, err error) {
	entry, err := l.state.Get(ctx, keyPositions)
	if errors.Is(err, js.ErrKeyNotFound) {
		p.set(nil, 0)
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("outbox: positions: %w", explain(err))
	}
	b := entry.Value()
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return "", fmt.Errorf("outbox: positions: key %s of %s is damaged", keyPositions, l.names.state())
	}
	writer, b = string(b[used:used+int(n)]), b[used+int(n):]
	list, err := outbox.DecodePositions(b)
	if err != nil {
		return "", fmt.Errorf("outbox: positions: key %s of %s: %w", keyPositions, l.names.state(), err)
	}
	p.set(list, entry.Revision())
	return writer, nil
}

// advance writes news over what is there. token tells instances apart.
func (p *positions) advance(ctx context.Context, l *layout, news []outbox.Position, token string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deposed {
		return errDeposed
	}
	for again := true; ; again = false {
		merged := outbox.MergePositions(slices.Clone(p.kept), news)
		b := append(binary.AppendUvarint(nil, uint64(len(token))), token...)
		revision, err := l.state.Update(ctx, keyPositions, outbox.AppendPositions(b, merged), p.revision)
		switch {
		case err == nil:
			p.set(merged, revision)
			return nil
		case !errors.Is(err, js.ErrKeyRevisionMismatch):
			return fmt.Errorf("outbox: positions: %w", explain(err))
		}
		// It may have been us: an answer that did not come.
		before := p.kept
		writer, err := p.read(ctx, l)
		if err != nil {
			return err
		}
		if writer != token || !again {
			p.set(before, p.revision)
			p.deposed = true
			return errDeposed
		}
	}
}

// set enters what is kept, and as which revision. p.mu is held.
func (p *positions) set(kept []outbox.Position, revision uint64) {
	p.kept, p.revision = kept, revision
	p.known.Store(&kept)
}

// seize takes over what is there and makes every write of a predecessor fail.
func (p *positions) seize(ctx context.Context, l *layout, token string) error {
	if err := p.load(ctx, l); err != nil {
		return err
	}
	return p.advance(ctx, l, nil, token)
}

// Positions implements outbox.Outbox. It does not wait for a write that is under way.
func (e *Engine) Positions() []outbox.Position {
	if known := e.positions.known.Load(); known != nil {
		return outbox.SortPositions(*known)
	}
	return nil
}
