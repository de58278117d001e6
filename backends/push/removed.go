package push

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/backends/push/journal"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// removalsKept is how many accounts are remembered that have ended. A request that was
// received before its account's end is carried out within seconds.
const removalsKept = 4096

// removals remembers when accounts ended, so that a request which has waited for the
// store does not bring back what was removed.
type removals struct {
	mu sync.Mutex
	of *simplelru.LRU[jid.JID, time.Time]
}

func newRemovals() *removals {
	of, _ := simplelru.NewLRU[jid.JID, time.Time](removalsKept, nil) // it fails for no size but one below 1
	return &removals{of: of}
}

func (r *removals) add(owner jid.JID, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.of.Get(owner); !ok || at.After(last) {
		r.of.Add(jid.JID(strings.Clone(string(owner))), at) // it is a part of an event
	}
}

// covers reports whether what was received then came before the end of the account, and
// when that was.
func (r *removals) covers(owner jid.JID, received time.Time) (end time.Time, yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end, ok := r.of.Peek(owner)
	return end, ok && !received.After(end)
}

// accountEnds clears what memory has of an account, in the order of the feed.
func (b *Backend) accountEnds(e *event.Event) {
	b.removals.add(e.User, e.Time)
	b.unread.Back(e.User, e.Time)
}

// removeAccount removes what an account that is no more has registered, as MongooseIM
// does at its hook remove_user, and its devices. The event may come again, and long after
// the fact: what was registered later than its time belongs to a new account of the name.
func (b *Backend) removeAccount(ctx context.Context, e *event.Event) error {
	var errs []error
	registrations, err := b.store.Forget(ctx, e.User, e.Time)
	if err != nil {
		errs = append(errs, err)
	}
	devices := 0
	if b.o.Devices != nil {
		if devices, err = b.o.Devices.Store().Forget(ctx, e.User, e.Time); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		b.journal.Note(e.User, e.ID, journal.Failed)
		return err
	}
	b.journal.Note(e.User, e.ID, journal.AccountRemoved)
	b.o.Log.Debug("push: an account is no more", "user", string(e.User), "registrations", registrations, "devices", devices)
	return nil
}
