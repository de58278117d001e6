package webpush

import (
	"context"
	"errors"
	"sync"
	"time"

	"eventpusher/backends"
)

// maxOrigins is how many origins are remembered before those without requests under
// way are forgotten, with the pauses that they asked for.
const maxOrigins = 4096

// errPaused says that a push service has asked to be left alone.
var errPaused = errors.New("the push service has asked for a pause")

// origins keeps push services apart: one that is slow or busy, which may be any
// user's own, takes no more than its share of the requests under way.
type origins struct {
	share int

	mu  sync.Mutex
	all map[string]*origin
}

type origin struct {
	places chan struct{}
	users  int       // who have a place or wait for one
	until  time.Time // no requests before
}

// enter waits for a place at the origin called name and returns how to leave it. It
// returns RetryAfter while the origin is paused.
func (s *origins) enter(ctx context.Context, name string) (leave func(), err error) {
	o, err := s.join(name)
	if err != nil {
		return nil, err
	}
	select {
	case o.places <- struct{}{}:
	case <-ctx.Done():
		s.part(name, o)
		return nil, ctx.Err()
	}
	leave = func() {
		<-o.places
		s.part(name, o)
	}
	// Others may have been told to pause while this one waited.
	if err := s.paused(o); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

func (s *origins) join(name string) (*origin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.all[name]
	if o == nil {
		if len(s.all) >= maxOrigins {
			s.forgetLocked()
		}
		o = &origin{places: make(chan struct{}, s.share)}
		s.all[name] = o
	}
	if err := o.pause(); err != nil {
		return nil, err
	}
	o.users++
	return o, nil
}

func (s *origins) part(name string, o *origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.users--
	if o.users == 0 && !time.Now().Before(o.until) {
		delete(s.all, name)
	}
}

func (s *origins) paused(o *origin) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return o.pause()
}

// pause returns RetryAfter with what is left of the origin's pause.
func (o *origin) pause() error {
	if left := time.Until(o.until); left > 0 {
		return backends.RetryAfter(left, errPaused)
	}
	return nil
}

// hold pauses the origin for d. It must have been entered.
func (s *origins) hold(name string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, until := s.all[name], time.Now().Add(d); o != nil && until.After(o.until) {
		o.until = until
	}
}

func (s *origins) forgetLocked() {
	for name, o := range s.all {
		if o.users == 0 {
			delete(s.all, name)
		}
	}
}
