package push

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/backends"
	"eventpusher/backends/push/registration"
)

const (
	// laggardPatience is how long a registration may fail before what the user's other
	// devices have is not tried again for it: meanwhile the later messages of the
	// conversation wait for all of them, since they are told in order.
	laggardPatience = time.Minute
	// laggardForgotten is after what time a failure says nothing about the next one.
	laggardForgotten = time.Hour
	laggardsKept     = 1 << 14
)

// laggards remembers since when registrations fail.
type laggards struct {
	mu sync.Mutex
	of *simplelru.LRU[string, failing]
}

// failing is between the first failure and the last one.
type failing struct{ since, last time.Time }

func newLaggards() *laggards {
	of, _ := simplelru.NewLRU[string, failing](laggardsKept, nil) // it fails for no size but one below 1
	return &laggards{of: of}
}

// fail notes that one has failed and returns for how long it has done nothing else.
func (l *laggards) fail(key string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.of.Get(key)
	if !ok || now.Sub(f.last) > laggardForgotten {
		f.since = now
	}
	f.last = now
	l.of.Add(key, f)
	return now.Sub(f.since)
}

func (l *laggards) succeed(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of.Remove(key)
}

// told is what became of telling one service of a message.
type told struct {
	result outcome
	err    error
}

// remaining returns the errors that are to be tried again. Services that have failed for
// long are given up if another one knows: they must not keep the next message from it. A
// user whom nobody could tell is another matter, and so is a service that is
// merely busy.
func (b *Backend) remaining(services []registration.Service, results []told, sum *Summary) (errs []error) {
	known := slices.ContainsFunc(results, func(t told) bool {
		return t.result == pushed || t.result == queued || t.result == duplicate
	})
	for i := range results {
		t, s := &results[i], &services[i]
		// Users name services and nodes as they like: the same names may be another's.
		key := string(sum.Notice.Recipient) + "\x00" + string(s.PubSub) + "\x00" + s.Node
		switch {
		case t.result == pushed || t.result == queued:
			b.laggards.succeed(key)
		case t.err == nil:
		case errors.As(t.err, new(*backends.ElsewhereError)) && !errors.Is(t.err, errCrowded) &&
			b.laggards.fail(key, b.o.Now()) >= laggardPatience && known:
			b.noteOf(sum.Notice.Recipient, sum.EventID, givenUp, sum.of(s))
		default:
			errs = append(errs, t.err)
		}
	}
	return errs
}
