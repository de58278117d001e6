package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"eventpusher/pusher/filter"
)

// handler returns everything that the listener serves.
func (s *Server) handler() http.Handler {
	metrics := promhttp.HandlerFor(s.o.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelWarn),
		// One collector that fails must not hide all the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
	})
	requests := &places{most: maxRequests, full: "too many requests are being served; try again"}
	streams := &places{most: maxStreams, full: "too many live pages are open; close one"}
	bounded := func(e endpoint) endpoint {
		in := requests
		if e.stream {
			in = streams
		}
		e.serve = s.connections.serving(in, e.serve)
		return e
	}
	endpoints := map[string]endpoint{
		"/healthz":    {open: true, methods: reading, serve: serveHealth},
		"/readyz":     {open: true, methods: reading, serve: s.serveReady},
		"/metrics":    bounded(endpoint{methods: reading, serve: metrics.ServeHTTP}),
		"/api/status": bounded(endpoint{methods: reading, serve: s.serveStatus}),
		"/":           bounded(endpoint{open: true, methods: reading, serve: s.servePage}),
	}
	for path, serve := range pageFiles() {
		endpoints[path] = bounded(endpoint{open: true, methods: reading, serve: serve})
	}
	for path, e := range s.pageAPI() {
		endpoints[path] = bounded(e)
	}
	for path, handler := range s.o.API {
		endpoints[path] = bounded(endpoint{secured: true, serve: handler.ServeHTTP})
	}
	return s.guard(endpoints)
}

// pageAPI returns what the page asks for. It needs the token as everything else does; what
// changes something, or shows what somebody wrote, is refused if no token is set.
func (s *Server) pageAPI() map[string]endpoint {
	api := make(map[string]endpoint)
	if s.o.Events != nil {
		api["/api/live"] = endpoint{stream: true, methods: http.MethodGet, serve: s.serveLive}
		api["/api/try"] = endpoint{methods: http.MethodPost, serve: s.serveTrial}
		api["/api/events/text"] = endpoint{secured: true, methods: reading, serve: s.serveEventText}
	}
	if s.o.Letters != nil {
		api["/api/letters"] = endpoint{methods: reading, serve: s.serveLetters}
		api["/api/letters/text"] = endpoint{secured: true, methods: reading, serve: s.serveLetterText}
		api["/api/letters/replay"] = endpoint{secured: true, methods: http.MethodPost, serve: s.serveReplay}
		api["/api/letters/drop"] = endpoint{secured: true, methods: http.MethodPost, serve: s.serveDrop}
	}
	return api
}

// serveHealth says that the process is alive: it answers.
func serveHealth(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }

// readiness is what /readyz says in JSON.
type readiness struct {
	Ready   bool     `json:"ready"`
	State   string   `json:"state,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
}

// serveReady says whether the process can take events, in JSON if that is asked for. Who has not
// shown the token, where there is one, learns that it cannot, but not why.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	answer, code := readiness{Reasons: s.notReady()}, http.StatusServiceUnavailable
	if answer.Ready = len(answer.Reasons) == 0; answer.Ready {
		answer.State, code = s.state(), http.StatusOK
	} else if !s.authorized(r) {
		answer.Reasons = []string{"the reasons are in the log and shown with the token"}
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		writeJSON(w, code, answer)
		return
	}
	if answer.Ready {
		writeText(w, code, answer.State)
		return
	}
	writeText(w, code, strings.Join(answer.Reasons, "\n"))
}

// state says in a word what a process that is ready does.
func (s *Server) state() string {
	if s.o.State == nil {
		return "ready"
	}
	return s.o.State()
}

func (s *Server) notReady() []string {
	if s.o.Ready == nil {
		return nil
	}
	reasons := s.o.Ready()
	lines := make([]string, len(reasons))
	for i, reason := range reasons {
		lines[i] = strings.Join(strings.Fields(reason), " ") // a reason is one line
	}
	return lines
}

// serveStatus writes the status as JSON, {} where there is none.
func (s *Server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	raw, err := s.statusJSON()
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(raw, '\n')) // the peer has gone: nobody to tell
}

func (s *Server) statusJSON() ([]byte, error) {
	if s.o.Status == nil {
		return []byte("{}"), nil
	}
	raw, err := json.Marshal(s.o.Status())
	if err != nil {
		return nil, fmt.Errorf("marshal status: %w", err)
	}
	return raw, nil
}

// servePage shows the status to a person. Without the token, where there is one, the page
// holds nothing but the question for it.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	data := pageData{Live: s.o.Events != nil && s.o.Letters != nil, SignIn: !s.authorized(r), Fields: filter.ExpressionFields()}
	if !data.SignIn {
		raw, err := s.statusJSON()
		if err != nil {
			s.fail(w, err)
			return
		}
		if data.Status, err = parseNode(raw); err != nil {
			s.fail(w, err)
			return
		}
		data.NotReady = s.notReady()
	}
	// Rendered before the first byte leaves, so that an error is still a 500.
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, data); err != nil {
		s.fail(w, fmt.Errorf("render page: %w", err))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	_, _ = w.Write(page.Bytes())
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	s.o.Log.Error("admin request failed", "err", err)
	http.Error(w, "internal error; the log says more", http.StatusInternalServerError)
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text)
}
