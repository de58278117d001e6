package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// handler returns everything that the listener serves.
func (s *Server) handler() http.Handler {
	metrics := promhttp.HandlerFor(s.o.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelWarn),
		// One collector that fails must not hide all the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
	})
	endpoints := map[string]endpoint{
		"/healthz":    {open: true, serve: serveHealth},
		"/readyz":     {open: true, serve: s.serveReady},
		"/metrics":    {serve: metrics.ServeHTTP},
		"/api/status": {serve: s.serveStatus},
		"/":           {serve: s.servePage},
	}
	for path, handler := range s.o.API {
		endpoints[path] = endpoint{changes: true, serve: handler.ServeHTTP}
	}
	for path, e := range endpoints {
		if !e.open {
			e.serve = s.connections.serving(e.serve)
			endpoints[path] = e
		}
	}
	return s.guard(endpoints)
}

// serveHealth says that the process is alive: it answers.
func serveHealth(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }

// serveReady says whether the process can take events. Who has not shown the
// token, where there is one, learns that it cannot, but not why.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	reasons := s.notReady()
	switch {
	case len(reasons) == 0:
		writeText(w, http.StatusOK, s.state())
	case !s.authorized(r):
		writeText(w, http.StatusServiceUnavailable, "the reasons are in the log and shown with the token")
	default:
		writeText(w, http.StatusServiceUnavailable, strings.Join(reasons, "\n"))
	}
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

// servePage shows the status to a person.
func (s *Server) servePage(w http.ResponseWriter, _ *http.Request) {
	raw, err := s.statusJSON()
	if err != nil {
		s.fail(w, err)
		return
	}
	status, err := parseNode(raw)
	if err != nil {
		s.fail(w, err)
		return
	}
	// Rendered before the first byte leaves, so that an error is still a 500.
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, pageData{Style: pageStyle, NotReady: s.notReady(), Status: status}); err != nil {
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
