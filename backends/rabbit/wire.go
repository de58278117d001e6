package rabbit

import (
	"io"
	"net"
	"sync"
	"time"
)

const (
	// writeTimeout ends writes to a broker that has stopped reading.
	writeTimeout = 20 * time.Second
	// maxHeld is how many bytes are held back at most. With more the broker waits while a
	// batch is put together.
	maxHeld = 8 << 10
)

// wire bounds each write: a broker that stops reading, hung or under an alarm,
// would otherwise hold the writer for ever. While it is corked, writes are put together.
type wire struct {
	net.Conn

	mu     sync.Mutex
	out    io.Writer // the connection
	corks  int
	held   []byte
	failed error
}

// cork holds writes back until each call has been followed by one of uncork.
func (w *wire) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corks++
}

// uncork writes what was held back. After an error the connection is closed.
func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.corks--; w.corks > 0 {
		return nil
	}
	return w.flush()
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = append(w.held, p...)
	if w.corks > 0 && len(w.held) < maxHeld {
		return len(p), nil
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *wire) flush() error {
	if w.failed == nil && len(w.held) > 0 {
		w.failed = w.SetWriteDeadline(time.Now().Add(writeTimeout))
		if w.failed == nil {
			_, w.failed = w.out.Write(w.held)
		}
		if w.failed != nil {
			_ = w.Close() // the reader notices, and ends the connection
		}
	}
	w.held = w.held[:0]
	return w.failed
}
