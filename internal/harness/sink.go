//go:build linux

package harness

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Sink is an HTTP listener that records what it gets and answers as the test
// wants. Safe for concurrent use.
type Sink struct {
	// Port is its port on 127.0.0.1; it survives Refuse and Accept.
	Port int

	t testing.TB

	mu      sync.Mutex
	server  *http.Server // nil while refusing
	served  chan struct{}
	got     []SinkRequest
	status  int           // the answer's
	header  http.Header   // the answer's
	hang    chan struct{} // not nil while hanging; closed to let go
	arrived chan struct{} // closed and replaced with every request
}

// SinkRequest is one request as it arrived.
type SinkRequest struct {
	Method string
	Path   string
	Header http.Header
	Body   []byte
	// Form is the decoded body when it is a form.
	Form url.Values
	// Status is what was answered; 0 for a request that was left hanging.
	Status int
	Time   time.Time
}

// HTTPSink starts a listener that answers 200 to everything.
func HTTPSink(t testing.TB) *Sink {
	t.Helper()
	ports, release, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	k := &Sink{Port: ports[0], t: t, status: http.StatusOK, arrived: make(chan struct{})}
	k.Accept()
	t.Cleanup(func() {
		k.Refuse()
		release()
	})
	return k
}

// URL is the sink's base URL, without a slash at the end.
func (k *Sink) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", k.Port) }

// Answer sets the status and headers (key, value, ...) of all further answers;
// it ends Hang.
func (k *Sink) Answer(status int, header ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status, k.header = status, http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		k.header.Add(header[i], header[i+1])
	}
	k.letGo()
}

// Hang leaves all further requests without an answer until Answer or Refuse.
func (k *Sink) Hang() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hang == nil {
		k.hang = make(chan struct{})
	}
}

func (k *Sink) letGo() {
	if k.hang != nil {
		close(k.hang)
		k.hang = nil
	}
}

// Refuse closes the listener and every connection, so that further ones are
// refused, and returns when that is done.
func (k *Sink) Refuse() {
	k.mu.Lock()
	server, served := k.server, k.served
	k.server = nil
	k.letGo()
	k.mu.Unlock()
	if server == nil {
		return
	}
	server.Close()
	<-served
	// A process that is being started at this moment still has the listener
	// until its exec, and the kernel goes on accepting for it.
	await(k.t, "the HTTP sink's port to be closed", func() bool {
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", k.Port))
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// Accept listens again on the same port.
func (k *Sink) Accept() {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.server != nil {
		return
	}
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", k.Port))
	if err != nil {
		k.t.Fatalf("http sink: %v", err)
	}
	server, served := &http.Server{Handler: http.HandlerFunc(k.serve)}, make(chan struct{})
	k.server, k.served = server, served
	go func() {
		defer close(served)
		server.Serve(l)
	}()
}

func (k *Sink) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender has gone away in the middle
	}
	req := SinkRequest{
		Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header.Clone(), Body: body, Time: time.Now(),
	}
	if r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		req.Form, err = url.ParseQuery(string(body))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}

	k.mu.Lock()
	hang, status, header := k.hang, k.status, k.header
	if hang == nil {
		req.Status = status
	}
	k.got = append(k.got, req)
	close(k.arrived)
	k.arrived = make(chan struct{})
	k.mu.Unlock()

	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler) // the connection ends without an answer
	}
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
}

// Requests returns what has arrived so far, in order.
func (k *Sink) Requests() []SinkRequest {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.got)
}

// Wait returns all requests as soon as there are n or more.
func (k *Sink) Wait(n int) []SinkRequest {
	k.t.Helper()
	deadline := time.After(WaitLimit)
	for {
		k.mu.Lock()
		got, arrived := len(k.got), k.arrived
		k.mu.Unlock()
		if got >= n {
			return k.Requests()
		}
		select {
		case <-arrived:
		case <-deadline:
			k.t.Fatalf("http sink: %d of %d requests within %s", got, n, WaitLimit)
		}
	}
}
