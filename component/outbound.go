package component

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// outboundQueue is how many answers wait for the writer; a user who asks faster
// than the server takes the answers loses them, never the link. One commit can answer
// for a thousand publishes and more. ownQueue is how many
// stanzas wait that nobody has asked for, more than there can be requests at once.
const (
	outboundQueue = 4096
	ownQueue      = 2 * maxRequests
	// outboundBytes bounds the answers that wait: a request's id, which the answer repeats,
	// can be as long as a stanza.
	outboundBytes = 8 << 20
)

// outbound writes to the server: one write at a time, each with a deadline.
// A write that fails may have left half a stanza behind, so it closes the
// connection, which also wakes the reader.
type outbound struct {
	conn    net.Conn
	timeout time.Duration
	queue   chan []byte
	own     chan []byte  // what the component sends of its own accord
	waiting atomic.Int64 // bytes in queue

	mu  sync.Mutex // held while writing
	err error

	deadlines sync.Mutex // never held while writing
	ending    time.Time  // set when we end our stream: by when all writing must be done
}

func newOutbound(c net.Conn, timeout time.Duration) *outbound {
	return &outbound{conn: c, timeout: timeout, queue: make(chan []byte, outboundQueue), own: make(chan []byte, ownQueue)}
}

// Write implements io.Writer for the session; it blocks for at most the timeout.
func (o *outbound) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.write(b)
}

func (o *outbound) write(b []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	o.setDeadline()
	n, err := o.conn.Write(b)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errStalled
		}
		o.err = err
		o.conn.Close()
	}
	return n, err
}

// enqueue hands b to the writer without ever blocking; false means it is dropped.
func (o *outbound) enqueue(b []byte) bool {
	if o.waiting.Add(int64(len(b))) <= outboundBytes {
		select {
		case o.queue <- b:
			return true
		default:
		}
	}
	o.waiting.Add(-int64(len(b)))
	return false
}

// run writes what is queued until done is closed. Nothing may follow
// </stream:stream>, so what is queued is dropped once the end has begun.
func (o *outbound) run(done <-chan struct{}) {
	for {
		var b []byte
		select {
		case b = <-o.queue:
			o.waiting.Add(-int64(len(b)))
		case b = <-o.own:
		case <-done:
			return
		}
		o.mu.Lock()
		if !o.isEnding() {
			o.write(b)
		}
		o.mu.Unlock()
	}
}

func (o *outbound) setDeadline() {
	o.deadlines.Lock()
	defer o.deadlines.Unlock()
	deadline := time.Now().Add(o.timeout)
	if !o.ending.IsZero() {
		deadline = o.ending
	}
	o.conn.SetWriteDeadline(deadline)
}

// endWith writes the last bytes of our half of the stream. What is queued is dropped, and
// writes fail after that time, also one that is blocked now. Only the first call writes.
func (o *outbound) endWith(last string, by time.Time) {
	if o.endBy(by) {
		_, _ = o.Write([]byte(last)) // the server may be gone
	}
}

// endBy begins the end, and reports whether it had not begun before.
func (o *outbound) endBy(t time.Time) bool {
	o.deadlines.Lock()
	defer o.deadlines.Unlock()
	first := o.ending.IsZero()
	o.ending = t
	o.conn.SetWriteDeadline(t)
	return first
}

func (o *outbound) isEnding() bool {
	o.deadlines.Lock()
	defer o.deadlines.Unlock()
	return !o.ending.IsZero()
}

// cause returns why writing failed, nil if it did not.
func (o *outbound) cause() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
