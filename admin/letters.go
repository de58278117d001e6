package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
)

// Letters are the dead letters. All methods are safe for concurrent use.
type Letters interface {
	DeadLetters() outbox.DeadLetters
	// Replay gives the selected ones back to their destinations and returns how many.
	Replay(ctx context.Context, f outbox.LetterFilter) (int, error)
}

// lettersPage is how many dead letters the page gets at once.
const lettersPage = 50

// maxBody bounds the body of a request, in bytes.
const maxBody = 64 << 10

// letter is what the page shows of a dead letter.
type letter struct {
	Number   uint64    `json:"number"`
	Backend  string    `json:"backend,omitempty"` // empty: no destination has seen it
	Reason   string    `json:"reason"`
	Error    string    `json:"error,omitempty"`
	Attempts int       `json:"attempts"`
	Died     time.Time `json:"died"`
	Event    *row      `json:"event,omitempty"`
}

// serveLetters lists dead letters, oldest first: those with a number above after, of one
// backend if it is given.
func (s *Server) serveLetters(w http.ResponseWriter, r *http.Request) {
	f := outbox.LetterFilter{Backend: r.FormValue("backend"), Limit: lettersPage}
	if after := r.FormValue("after"); after != "" {
		var err error
		if f.After, err = strconv.ParseUint(after, 10, 64); err != nil {
			refuse(w, http.StatusBadRequest, "after is not a number")
			return
		}
	}
	list, err := s.o.Letters.DeadLetters().List(f)
	if err != nil {
		s.fail(w, fmt.Errorf("list dead letters: %w", err))
		return
	}
	shown := make([]letter, len(list))
	for i, d := range list {
		shown[i] = letter{Number: d.ID, Backend: d.Backend, Reason: d.Reason, Error: d.Err, Attempts: d.Attempts, Died: d.Died}
		if d.Event != nil {
			about := rowOf(d.Event)
			shown[i].Event = &about
		}
	}
	writeJSON(w, http.StatusOK, shown)
}

// texts are what an event says.
type texts struct {
	Body     string         `json:"body,omitempty"`
	Packet   string         `json:"packet,omitempty"`
	Metadata event.Metadata `json:"metadata,omitempty"`
	Cut      bool           `json:"cut,omitempty"` // it was too large to be remembered
}

func textsOf(e *event.Event) texts {
	return texts{Body: e.Body, Packet: e.Packet, Metadata: e.Metadata}
}

// serveLetterText shows what the event of a dead letter says.
func (s *Server) serveLetterText(w http.ResponseWriter, r *http.Request) {
	number, ok := numberOf(w, r)
	if !ok {
		return
	}
	switch d, err := s.o.Letters.DeadLetters().Get(number); {
	case errors.Is(err, outbox.ErrNoLetter):
		refuse(w, http.StatusNotFound, fmt.Sprintf("there is no dead letter %d any more", number))
	case err != nil:
		s.fail(w, fmt.Errorf("read dead letter %d: %w", number, err))
	case d.Event == nil:
		writeJSON(w, http.StatusOK, texts{})
	default:
		writeJSON(w, http.StatusOK, textsOf(d.Event))
	}
}

// serveEventText shows what an event says that is remembered.
func (s *Server) serveEventText(w http.ResponseWriter, r *http.Request) {
	number, ok := numberOf(w, r)
	if !ok {
		return
	}
	var found []trace.Event
	if number > 0 {
		found, _ = s.o.Events.After(number-1, 1)
	}
	if len(found) == 0 || found[0].Number != number {
		refuse(w, http.StatusNotFound, fmt.Sprintf("event %d is not remembered any more; the last %d are", number, trace.MaxEvents))
		return
	}
	t := textsOf(&found[0].Event)
	t.Cut = found[0].Cut
	writeJSON(w, http.StatusOK, t)
}

// numberOf reads the parameter number; if it is none, the answer is written.
func numberOf(w http.ResponseWriter, r *http.Request) (n uint64, ok bool) {
	n, err := strconv.ParseUint(r.FormValue("number"), 10, 64)
	if err != nil {
		refuse(w, http.StatusBadRequest, "number is not a number")
	}
	return n, err == nil
}

// selection is the body of a request that changes dead letters: one by its number, or for a
// replay all of one backend ("-": those that no destination has seen).
type selection struct {
	Number  uint64 `json:"number"`
	Backend string `json:"backend"`
}

// serveReplay gives dead letters back to their destinations, and returns how many.
func (s *Server) serveReplay(w http.ResponseWriter, r *http.Request) {
	var chosen selection
	if !readJSON(w, r, &chosen) {
		return
	}
	if (chosen.Number == 0) == (chosen.Backend == "") {
		refuse(w, http.StatusBadRequest, "give either number or backend")
		return
	}
	// Many of them take longer than an answer may.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
		s.fail(w, err)
		return
	}
	n, err := s.o.Letters.Replay(r.Context(), outbox.LetterFilter{ID: chosen.Number, Backend: chosen.Backend, Until: time.Now()})
	s.changed(w, "replayed", n, err)
}

// serveDrop forgets one dead letter.
func (s *Server) serveDrop(w http.ResponseWriter, r *http.Request) {
	var chosen selection
	if !readJSON(w, r, &chosen) {
		return
	}
	if chosen.Number == 0 || chosen.Backend != "" {
		refuse(w, http.StatusBadRequest, "give number; for many, use: eventpusher dlq drop")
		return
	}
	n, err := s.o.Letters.DeadLetters().Drop(outbox.LetterFilter{ID: chosen.Number})
	s.changed(w, "dropped", n, err)
}

func (s *Server) changed(w http.ResponseWriter, what string, n int, err error) {
	if err != nil {
		s.fail(w, fmt.Errorf("dead letters are not %s: %w", what, err))
		return
	}
	s.o.Log.Info("dead letters "+what+" on the page", "count", n)
	writeJSON(w, http.StatusOK, map[string]int{"count": n})
}

// readJSON reads the body of a request; if it cannot, the answer is written. A form of a
// foreign page cannot have this type of content, in addition to the token that it lacks.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "send JSON with Content-Type: application/json")
		return false
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("the body cannot be read (at most %d bytes of JSON): %v", maxBody, err))
		return false
	}
	return true
}

// refuse answers a request of the page that cannot be fulfilled.
func refuse(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, map[string]string{"error": text})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // fails if the peer has gone
}
