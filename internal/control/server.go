package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"eventpusher/internal/finding"
	"eventpusher/pusher/outbox"
)

// Server answers the commands of this machine.
type Server struct {
	listener net.Listener
	server   *http.Server
	mux      *http.ServeMux
	log      *slog.Logger
}

// Listen opens the socket, mode 0600, in the outbox's directory dir. The caller
// holds the outbox's lock, so a socket that is there already is a dead one's.
//
// doctor examines the instance and its surroundings; it is called for one command at a
// time, and its context ends with the command.
func Listen(dir string, box Box, doctor func(context.Context) []finding.Finding, log *slog.Logger) (*Server, error) {
	path := filepath.Join(dir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("control: %w", err)
	}
	h := handler{letters: box.DeadLetters(), log: log, doctor: doctor, examining: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dead-letters", h.list)
	mux.HandleFunc("GET /dead-letters/{id}", h.get)
	mux.HandleFunc("POST /dead-letters/drop", h.change("dropped", func(_ context.Context, f outbox.LetterFilter) (int, error) { return h.letters.Drop(f) }))
	mux.HandleFunc("POST /dead-letters/replay", h.change("replayed", box.Replay))
	mux.HandleFunc("POST /outbox/move", h.outbox("moved", func(ctx context.Context, q url.Values) (int, error) { return box.Move(ctx, q.Get("from"), q.Get("to")) }))
	mux.HandleFunc("POST /outbox/forget", h.outbox("forgotten", func(_ context.Context, q url.Values) (int, error) { return box.Forget(q.Get("from")) }))
	mux.HandleFunc("GET /outbox/waiting", h.waiting(box))
	mux.HandleFunc("GET /doctor", h.examine)
	return &Server{listener: listener, server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, mux: mux, log: log}, nil
}

// Run answers until ctx ends; then it closes the socket and removes it.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.server.Close() })
	defer stop()
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}

// Close is for a Server that will not Run.
func (s *Server) Close() error { return s.listener.Close() }

type handler struct {
	letters   outbox.DeadLetters
	log       *slog.Logger
	doctor    func(context.Context) []finding.Finding
	examining chan struct{} // holds one while an examination is under way
}

// count is the answer to a change.
type count struct {
	Count int `json:"count"`
}

// failure is the answer to what cannot be done.
type failure struct {
	Error string `json:"error"`
}

func (h handler) list(w http.ResponseWriter, r *http.Request) {
	f, err := decode(r.URL.Query())
	if err != nil {
		answer(w, http.StatusBadRequest, failure{err.Error()})
		return
	}
	list, err := h.letters.List(f)
	if err != nil {
		answer(w, http.StatusInternalServerError, failure{err.Error()})
		return
	}
	answer(w, http.StatusOK, list)
}

func (h handler) get(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		answer(w, http.StatusBadRequest, failure{err.Error()})
		return
	}
	switch d, err := h.letters.Get(id); {
	case errors.Is(err, outbox.ErrNoLetter):
		answer(w, http.StatusNotFound, failure{err.Error()})
	case err != nil:
		answer(w, http.StatusInternalServerError, failure{err.Error()})
	default:
		answer(w, http.StatusOK, d)
	}
}

func (h handler) change(what string, do func(context.Context, outbox.LetterFilter) (int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, err := decode(r.URL.Query())
		if err != nil {
			answer(w, http.StatusBadRequest, failure{err.Error()})
			return
		}
		n, err := do(r.Context(), f)
		if err != nil {
			answer(w, http.StatusInternalServerError, failure{err.Error()})
			return
		}
		h.log.Info("dead letters "+what+" by command", "count", n)
		answer(w, http.StatusOK, count{n})
	}
}

// outbox does something to what waits for the backend from.
func (h handler) outbox(what string, do func(context.Context, url.Values) (int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch n, err := do(r.Context(), q); {
		case errors.Is(err, fs.ErrNotExist):
			answer(w, http.StatusNotFound, failure{err.Error()})
		case err != nil:
			answer(w, http.StatusInternalServerError, failure{err.Error()})
		default:
			h.log.Info("events "+what+" by command", "backend", q.Get("from"), "to", q.Get("to"), "count", n)
			answer(w, http.StatusOK, count{n})
		}
	}
}

// waiting says what forgetting the backend from would give up.
func (h handler) waiting(box Box) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch n, err := box.Waiting(r.URL.Query().Get("from")); {
		case errors.Is(err, fs.ErrNotExist):
			answer(w, http.StatusNotFound, failure{err.Error()})
		case err != nil:
			answer(w, http.StatusInternalServerError, failure{err.Error()})
		default:
			answer(w, http.StatusOK, count{n})
		}
	}
}

func (h handler) examine(w http.ResponseWriter, r *http.Request) {
	select {
	case h.examining <- struct{}{}:
		defer func() { <-h.examining }()
	case <-r.Context().Done():
		return
	}
	answer(w, http.StatusOK, h.doctor(r.Context()))
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// If this fails the command has gone.
	_ = json.NewEncoder(w).Encode(v)
}
