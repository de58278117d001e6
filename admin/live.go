package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/trace"
)

const (
	// liveStep is how often the page learns of new events, and sampleSteps times that how
	// often of the rest.
	liveStep    = 500 * time.Millisecond
	sampleSteps = 2
	// tailEvents is how many of the last events the page shows.
	tailEvents = 50
	// liveWrite is how long one message of a stream may take.
	liveWrite = 10 * time.Second
)

// sample is one message of the stream: how everything stands.
type sample struct {
	Time time.Time `json:"time"`
	// Events is how many events have come since the start.
	Events   uint64          `json:"events"`
	State    string          `json:"state"`
	NotReady []string        `json:"not_ready,omitempty"`
	Status   json.RawMessage `json:"status"`
}

// row is what the page shows of an event. It has no text of a message, and no metadata,
// which a filter can have made of the text.
type row struct {
	Number       uint64     `json:"number,omitempty"`
	ID           string     `json:"id"`
	StanzaID     string     `json:"stanza_id,omitempty"`
	Time         time.Time  `json:"time,omitzero"`
	Sort         string     `json:"sort"`
	From         string     `json:"from"`
	To           string     `json:"to,omitempty"`
	Host         string     `json:"host,omitempty"`
	Feed         string     `json:"feed,omitempty"`
	Fate         trace.Fate `json:"fate,omitempty"`
	By           string     `json:"by,omitempty"`
	Error        string     `json:"error,omitempty"`
	Destinations []delivery `json:"destinations,omitempty"`
}

// delivery is what the page shows of an event at a destination.
type delivery struct {
	Name  string      `json:"name"`
	State trace.State `json:"state"`
	Tries int         `json:"tries,omitempty"`
	Error string      `json:"error,omitempty"` // of the last attempt that failed
}

func rowOf(e *event.Event) row {
	return row{ID: e.ID, StanzaID: e.StanzaID, Sort: e.Sort(), From: string(e.From), To: string(e.To), Host: e.Host, Feed: e.Dialect}
}

func tracedRow(e *trace.Event) row {
	r := rowOf(&e.Event)
	r.Number, r.Time, r.Fate, r.By, r.Error = e.Number, e.Came, e.Fate, e.By, e.Error
	for _, d := range e.Destinations {
		shown := delivery{Name: d.Destination, State: d.State, Tries: d.Tries}
		if n := len(d.Attempts); n > 0 {
			shown.Error = d.Attempts[n-1].Error
		}
		r.Destinations = append(r.Destinations, shown)
	}
	return r
}

// serveLive writes server-sent events until the page or the process ends: "hello" once,
// "sample" every second, and "tail", the last events, the newest first, whenever they or what
// became of them has changed.
func (s *Server) serveLive(w http.ResponseWriter, r *http.Request) {
	out := &stream{w: w, control: http.NewResponseController(w)}
	// Those of the server are for answers that end.
	if err := out.control.SetReadDeadline(time.Time{}); err != nil {
		s.fail(w, fmt.Errorf("stream to the page: %w", err))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(liveStep)
	defer ticker.Stop()
	err := out.send("hello", map[string]bool{"changes": s.cfg.Token != ""})
	var tail []byte
	for n := 0; err == nil; n++ {
		if n%sampleSteps == 0 {
			err = s.sendSample(out)
		}
		if err == nil {
			tail, err = s.sendTail(out, tail)
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.ending:
			return
		case <-ticker.C:
		}
	}
	// An error of writing means that the page has gone.
	s.o.Log.Debug("admin: stream to the page ended", "err", err)
}

func (s *Server) sendSample(out *stream) error {
	raw, err := s.statusJSON()
	if err != nil {
		return err
	}
	return out.send("sample", sample{Time: time.Now(), Events: s.o.Events.Last(), State: s.state(), NotReady: s.notReady(), Status: raw})
}

// sendTail sends the last events if they differ from before, and returns them.
func (s *Server) sendTail(out *stream, before []byte) ([]byte, error) {
	last := s.o.Events.Last()
	list, _ := s.o.Events.After(last-min(last, tailEvents), tailEvents)
	rows := make([]row, len(list))
	for i := range list {
		rows[i] = tracedRow(&list[i])
	}
	slices.Reverse(rows)
	raw, err := json.Marshal(rows)
	if err != nil || bytes.Equal(raw, before) {
		return before, err
	}
	return raw, out.send("tail", json.RawMessage(raw))
}

// stream writes server-sent events (HTML Living Standard section 9.2).
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s *stream) send(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("stream to the page: %w", err)
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(liveWrite)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, data); err != nil {
		return err
	}
	return s.control.Flush()
}
