package push

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

const (
	// A registration that gets nothing but refusals is removed after goneRefusals in a row
	// if the first of them is goneAfter old.
	goneRefusals = 16
	goneAfter    = 24 * time.Hour
	// After slowRefusals in a row one notification in refusedRest is sent. The others count
	// as refused.
	slowRefusals = 5
	refusedRest  = time.Minute
	failingKept  = 1 << 16
)

// failing counts refusals by registration. The counts are best effort: after a restart they
// start again.
type failing struct {
	mu sync.Mutex
	of *simplelru.LRU[failingKey, refusals]
}

// failingKey is a registration until it is renewed.
type failingKey struct {
	owner, pubsub jid.JID
	node          string
	created       int64
}

// refusals are those in a row.
type refusals struct {
	n           int
	first, last time.Time
}

func newFailing() *failing {
	of, _ := simplelru.NewLRU[failingKey, refusals](failingKept, nil) // it fails for no size but one below 1
	return &failing{of: of}
}

func keyOf(owner jid.JID, s *store.Service) failingKey {
	return failingKey{owner, s.PubSub, s.Node, s.Created.UnixMicro()}
}

// refuses reports whether the service is not to be asked now, since it would refuse again.
func (f *failing) refuses(owner jid.JID, s *store.Service, now func() time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.of.Get(keyOf(owner, s))
	return ok && r.n >= slowRefusals && now().Sub(r.last) < refusedRest
}

// fails notes a refusal and reports whether the registration is to be removed.
func (f *failing) fails(owner jid.JID, s *store.Service, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := keyOf(owner, s)
	r, ok := f.of.Get(key)
	if !ok {
		r.first = now
	}
	r.n, r.last = r.n+1, now
	f.of.Add(key, r)
	return r.n >= goneRefusals && now.Sub(r.first) >= goneAfter
}

// succeeds forgets refusals.
func (f *failing) succeeds(owner jid.JID, s *store.Service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of.Remove(keyOf(owner, s))
}

const (
	// waitingMost is how many notifications wait for one registration. The newest ones stand
	// for the older ones.
	waitingMost = 32
	backlogKept = 1 << 14
)

// backlog remembers the newest notifications of each registration for which some wait.
type backlog struct {
	mu sync.Mutex
	of *simplelru.LRU[string, []int64] // Unix times in microseconds, newest first
}

func newBacklog() *backlog {
	of, _ := simplelru.NewLRU[string, []int64](backlogKept, nil) // it fails for no size but one below 1
	return &backlog{of: of}
}

// superseded notes a notification that has to wait and reports whether waitingMost newer
// ones of its registration do.
func (b *backlog) superseded(key string, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	newest, _ := b.of.Get(key)
	t := at.UnixMicro()
	i := slices.IndexFunc(newest, func(one int64) bool { return one <= t })
	switch {
	case i >= 0 && newest[i] == t:
		return false
	case i < 0 && len(newest) == waitingMost:
		return true
	case i < 0:
		i = len(newest)
	}
	newest = slices.Insert(newest, i, t)
	b.of.Add(key, newest[:min(len(newest), waitingMost)])
	return false
}
