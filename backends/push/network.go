package push

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/backends"
	"eventpusher/internal/jid"
)

const (
	// answerPatience is how long a notification holds its lane up for a push service.
	// What takes longer goes on by itself, and the next attempt finds the answer.
	answerPatience = time.Second
	// answerRetry is when that attempt makes sense.
	answerRetry = 2 * time.Second
	// silentRest is how long a push service that has not answered at all is left alone.
	// Then one notification tries.
	silentRest = 30 * time.Second
	// maxUnderway is how many notifications are under way at push services. Those that
	// are slow get half of that, and each of them slowUnderway.
	maxUnderway  = 512
	slowUnderway = 8
	// peersKept and answersKept bound what is remembered of push services, which are
	// whatever users name, and answers that nobody may come for.
	peersKept   = 4096
	answersKept = 4096
)

// errUnanswered, errSilent and errCrowded are why a notification waits.
var (
	errUnanswered = errors.New("the push service has not answered yet")
	errSilent     = errors.New("the push service did not answer lately; it is asked again in a moment")
	errCrowded    = errors.New("the push service has as many notifications as it may have at once")
)

// network publishes at the push services of the XMPP network, and keeps them apart: one
// that hangs takes lanes from those of others for a moment only. It is safe for
// concurrent use.
type network struct {
	services Services
	ctx      context.Context // of what goes on by itself
	cancel   context.CancelFunc
	sends    sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	underway int
	peers    *simplelru.LRU[jid.JID, *peer]
	answers  map[string]*reply
}

// peer is one push service.
type peer struct {
	underway int
	slow     bool      // its last answer took long, or one is overdue
	answered time.Time // when it did last
	silent   bool      // it has left something without an answer, and answered nothing meanwhile
	until    time.Time // if it is silent: nothing is sent before
}

// reply is that of a push service, once done is closed.
type reply struct {
	began time.Time
	done  chan struct{}
	err   error
}

func newNetwork(s Services) *network {
	peers, _ := simplelru.NewLRU[jid.JID, *peer](peersKept, nil) // it fails for no size but one below 1
	n := &network{services: s, peers: peers, answers: make(map[string]*reply)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// set publishes the payload at a service, once for each key until it has returned what
// became of that. A refusal that is older than the registration, which was created then,
// is not about it. The errors are those of Services, marked by elsewhere, or a
// *backends.WaitError.
func (n *network) set(ctx context.Context, key string, to jid.JID, created time.Time, payload []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a, p, err := n.begin(key, to, created, payload)
	if err != nil {
		return err
	}
	timer := time.NewTimer(answerPatience)
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
		n.overdue(p)
		return backends.Wait(answerRetry, errUnanswered)
	case <-ctx.Done():
		return ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.answers, key)
	return a.err
}

// begin sends, unless that was done before.
func (n *network) begin(key string, to jid.JID, created time.Time, payload []byte) (*reply, *peer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.peers.Get(to)
	if !ok {
		p = &peer{}
		n.peers.Add(to, p)
	}
	if a := n.answers[key]; a != nil {
		select {
		case <-a.done:
			if a.err == nil || !created.After(a.began) {
				return a, p, nil
			}
			delete(n.answers, key)
		default:
			return nil, nil, backends.Wait(answerRetry, errUnanswered)
		}
	}
	switch {
	case n.closed:
		return nil, nil, context.Canceled
	case p.silent && (p.underway > 0 || time.Now().Before(p.until)):
		return nil, nil, backends.Elsewhere(errSilent)
	case p.slow && (p.underway >= slowUnderway || n.underway >= maxUnderway/2):
		// With pauses that grow, since much may wait for it.
		return nil, nil, backends.Elsewhere(errCrowded)
	case n.underway >= maxUnderway:
		return nil, nil, backends.Wait(answerRetry, errCrowded)
	}
	if len(n.answers) >= answersKept {
		n.dropLocked()
	}
	a := &reply{began: time.Now(), done: make(chan struct{})}
	n.answers[key] = a
	n.underway++
	p.underway++
	n.sends.Go(func() {
		err := n.services.Set(n.ctx, to, payload)
		a.err = elsewhere(n.ctx, err)
		n.ended(p, err, a.began)
		close(a.done)
	})
	return a, p, nil
}

// overdue notes that a service lets us wait.
func (n *network) overdue(p *peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.slow = true
}

// ended notes what a service has answered, if it has, to what was sent at that time.
func (n *network) ended(p *peer, err error, began time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.underway--
	p.underway--
	switch {
	case err == nil, errors.As(err, new(*Refusal)):
		p.answered, p.silent, p.slow = time.Now(), false, time.Since(began) >= answerPatience
	case errors.Is(err, context.DeadlineExceeded) && !p.answered.After(began):
		p.silent, p.slow, p.until = true, true, time.Now().Add(silentRest)
	}
}

// dropLocked forgets the answers that are there: nobody has come for them, such as
// after the notification has expired.
func (n *network) dropLocked() {
	for key, a := range n.answers {
		select {
		case <-a.done:
			delete(n.answers, key)
		default:
		}
	}
}

// close ends what is under way.
func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.cancel()
	n.sends.Wait()
}

// elsewhere marks what one push service of the network says, or that it says nothing:
// users register whatever service they like, so one that is dead must not hold up those
// of others.
func elsewhere(ctx context.Context, err error) error {
	if errors.As(err, new(*Refusal)) || errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return backends.Elsewhere(err)
	}
	return err
}
