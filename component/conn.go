package component

import (
	"bufio"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// heardSize is how much of what the server says is kept until the handshake is
// done, to recognise what is no XMPP server.
const heardSize = 256

// maxHandshake is how many bytes the server may send until it has accepted the handshake. A
// stream header, a stream error and the answer have less than 2 KiB together.
const maxHandshake = 64 << 10

// conn is the connection as mellium sees it during the handshake. It is an
// io.ByteReader, so that encoding/xml takes no byte more than it needs: what the server
// sends in one segment with <handshake/> belongs to the framer.
type conn struct {
	net.Conn // writes go through outbound; reads as described
	in       *bufio.Reader
	prologue prologue
	out      *outbound
}

func newConn(c net.Conn, in *watchedReader, out *outbound) *conn {
	buffered := bufio.NewReader(in)
	return &conn{Conn: c, in: buffered, prologue: prologue{in: buffered}, out: out}
}

// Write implements io.Writer.
func (c *conn) Write(b []byte) (int, error) { return c.out.Write(b) }

// ReadByte implements io.ByteReader.
func (c *conn) ReadByte() (byte, error) { return c.prologue.ReadByte() }

// Read implements io.Reader.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := c.prologue.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}

// watchedReader reads the socket and watches over the silence: it counts only the
// time spent waiting for bytes, so that a handler that takes its time is not taken
// for a dead server.
type watchedReader struct {
	conn              net.Conn
	interval, timeout time.Duration
	// ping is called after interval without a byte, and once more, as the second one, after
	// half of timeout without an answer.
	ping func(second bool)

	watching bool   // after the handshake, which has a deadline of its own
	heard    []byte // the first bytes, until then
	read     int    // how many bytes, until then

	mu     sync.Mutex
	ending time.Time // set when we have ended our stream: by when the peer must have
}

// Read implements io.Reader.
func (w *watchedReader) Read(p []byte) (int, error) {
	if !w.watching {
		if w.read > maxHandshake {
			return 0, errVerbose
		}
		n, err := w.conn.Read(p)
		w.read += n
		w.heard = append(w.heard, p[:min(n, heardSize-len(w.heard))]...)
		return n, err
	}
	wait, pings := w.interval, 0
	for {
		if err := w.setDeadline(wait); err != nil {
			return 0, err
		}
		n, err := w.conn.Read(p)
		switch {
		case n > 0 || !errors.Is(err, os.ErrDeadlineExceeded):
			return n, err
		case w.isEnding():
			return 0, err
		case pings == 2:
			return 0, errNoPong
		}
		w.ping(pings == 1)
		wait, pings = w.timeout/2, pings+1
	}
}

func (w *watchedReader) setDeadline(wait time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	deadline := time.Now().Add(wait)
	if !w.ending.IsZero() {
		deadline = w.ending
	}
	return w.conn.SetReadDeadline(deadline)
}

// endBy makes reads fail after that time, also one that is waiting now.
func (w *watchedReader) endBy(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending = t
	w.conn.SetReadDeadline(t)
}

func (w *watchedReader) isEnding() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.ending.IsZero()
}
