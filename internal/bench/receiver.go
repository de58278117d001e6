package bench

import (
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// receiver takes events over HTTP and notes how old they are.
type receiver struct {
	listener net.Listener
	server   *http.Server

	marked atomic.Bool // cleared by an event without the mark of those that are made up

	mu   sync.Mutex
	from time.Time // older messages do not count
	late []time.Duration
}

func newReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{listener: l}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(l) }() // it ends with close
	return r, nil
}

func (r *receiver) url() string { return "http://" + r.listener.Addr().String() + "/" }
func (r *receiver) close()      { _ = r.server.Close() }

// begin forgets what came before.
func (r *receiver) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from, r.late = time.Now(), nil
}

func (r *receiver) latencies() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.late
}

// ServeHTTP reads from the text of the message when it was sent.
func (r *receiver) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	now := time.Now()
	var e struct {
		Body     string
		Metadata map[string]any
	}
	if json.NewDecoder(req.Body).Decode(&e) != nil {
		return
	}
	if _, marked := e.Metadata[SampleKey]; !marked {
		r.marked.Store(false)
	}
	n, err := strconv.ParseInt(e.Body, 10, 64)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if sent := time.Unix(0, n); !sent.Before(r.from) {
		r.late = append(r.late, now.Sub(sent))
	}
}
