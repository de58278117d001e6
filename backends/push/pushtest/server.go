// Package pushtest stands in for the providers of push notifications. The stand-ins
// take requests as strictly as the provider documents them, answer in its words, and
// keep what they took. They are for tests only.
package pushtest

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"eventpusher/config"
)

// Answer is what a stand-in says instead of judging a request.
type Answer struct {
	Before func() // runs first, when not nil
	Status int    // 0: judge the request after all
	Header map[string]string
	Body   string
}

// Server is what the stand-ins have in common. Its methods are safe for concurrent
// use.
type Server struct {
	URL    string // https://127.0.0.1:port
	CAFile string // the authority to trust, in PEM

	disconnect func()

	mu          sync.Mutex
	scripts     map[string][]Answer
	connections int
}

// start serves for as long as the test.
func (s *Server) start(t testing.TB, handle http.HandlerFunc) {
	t.Helper()
	end, err := s.open(t.TempDir(), handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
}

// open serves with handle over TLS, HTTP/2 where the client speaks it, until end. The
// authority to trust is written to the directory.
func (s *Server) open(dir string, handle http.HandlerFunc) (end func(), err error) {
	s.scripts = make(map[string][]Answer)
	h := httptest.NewUnstartedServer(handle)
	h.EnableHTTP2 = true
	h.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			s.connections++
			s.mu.Unlock()
		}
	}
	h.StartTLS()
	s.URL = h.URL
	s.disconnect = h.CloseClientConnections
	s.CAFile = filepath.Join(dir, "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	if err := os.WriteFile(s.CAFile, ca, 0o600); err != nil {
		h.Close()
		return nil, err
	}
	return h.Close, nil
}

// TLS returns options that trust the stand-in.
func (s *Server) TLS() *config.TLS { return &config.TLS{CACertFile: s.CAFile} }

// Script makes the stand-in give these answers to the next requests for the address:
// a token, a device id, or the path of an endpoint. They are given before anything
// of a request is checked.
func (s *Server) Script(address string, answers ...Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[address] = append(s.scripts[address], answers...)
}

// Holder returns a function that makes the stand-in answer the next request for the address
// only when release is closed, with 503.
func (s *Server) Holder(address string) func(release <-chan struct{}) {
	return func(release <-chan struct{}) {
		s.Script(address, Answer{Before: func() { <-release }, Status: http.StatusServiceUnavailable})
	}
}

// Connections returns how many connections clients have opened.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// Disconnect breaks all connections, in the middle of whatever they are at.
func (s *Server) Disconnect() { s.disconnect() }

// scripted gives the next answer for address, if there is one.
func (s *Server) scripted(w http.ResponseWriter, address string) bool {
	s.mu.Lock()
	queue := s.scripts[address]
	if len(queue) == 0 {
		s.mu.Unlock()
		return false
	}
	answer := queue[0]
	s.scripts[address] = queue[1:]
	s.mu.Unlock()
	if answer.Before != nil {
		answer.Before()
	}
	if answer.Status == 0 {
		return false
	}
	for name, value := range answer.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(answer.Status)
	_, _ = io.WriteString(w, answer.Body)
	return true
}

// maxRequest is read of a request; no provider takes as much.
const maxRequest = 64 << 10

func readAll(r *http.Request) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r.Body, maxRequest))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // a defect of the stand-in; net/http turns it into a failed request
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
