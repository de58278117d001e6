package control

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"eventpusher/backends/push/journal"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/trace"
)

// Life is what the running instance knows of an event or a stanza.
type Life struct {
	pusher.Explanation
	// Push has what was decided about notifications for it, in an instance with push.
	Push []journal.Decision `json:"push,omitempty"`
}

// tailStep is how many events are written at once.
const tailStep = 100

// HandleEvents has the server answer the commands about events as well. push is nil in an
// instance without push. It is called before Run.
func (s *Server) HandleEvents(p *pusher.Pusher, t *trace.Recorder, push Push) {
	s.mux.HandleFunc("GET /events/explain", func(w http.ResponseWriter, r *http.Request) {
		life, err := lifeOf(r.Context(), p, push, r.URL.Query().Get("id"))
		if err != nil {
			answer(w, http.StatusInternalServerError, failure{err.Error()})
			return
		}
		answer(w, http.StatusOK, life)
	})
	s.mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		when, err := condition(q.Get("when"))
		if err != nil {
			answer(w, http.StatusBadRequest, failure{err.Error()})
			return
		}
		tail(w, r, t, when, q.Has("texts"))
	})
}

// condition compiles the expression of a command; empty is no condition.
func condition(source string) (*filter.Condition, error) {
	if source == "" {
		return nil, nil
	}
	c, problems := filter.CompileCondition("when", source)
	if c == nil {
		return nil, fmt.Errorf("%s; %s", problems[0].Text, problems[0].Remedy)
	}
	return c, nil
}

func lifeOf(ctx context.Context, p *pusher.Pusher, push Push, id string) (Life, error) {
	x, err := p.Explain(id)
	for i := range x.Events {
		x.Events[i].HideTexts()
	}
	if err != nil || push == nil {
		return Life{Explanation: x}, err
	}
	life := Life{Explanation: x}
	for _, e := range x.Events {
		said, err := push.Explain(ctx, e.Event.User)
		if err != nil {
			return life, err
		}
		for _, d := range said.Decisions {
			if d.EventID == e.Event.ID {
				life.Push = append(life.Push, d)
			}
		}
	}
	return life, nil
}

// tail writes events as they come, one JSON object a line, until the command ends.
func tail(w http.ResponseWriter, r *http.Request, t *trace.Recorder, when *filter.Condition, texts bool) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	for last := t.Last(); ; {
		list, more := t.After(last, tailStep)
		for i := range list {
			e := &list[i]
			last = e.Number
			if when != nil {
				if yes, err := when.Holds(&e.Event); !yes || err != nil {
					continue
				}
			}
			if !texts {
				e.HideTexts()
			}
			if out.Encode(e) != nil {
				return // the command has gone
			}
		}
		if flush.Flush() != nil {
			return
		}
		if len(list) == tailStep {
			continue
		}
		select {
		case <-r.Context().Done():
			return
		case <-more:
		}
	}
}

// Life returns what the instance knows of an event, by its ID, or of a stanza.
func (c *Client) Life(ctx context.Context, id string) (life Life, err error) {
	err = c.askWithin(ctx, http.MethodGet, "/events/explain", url.Values{"id": {id}}, &life)
	return life, err
}

// Tail calls f with each event that comes from now on and fulfils an expression, until ctx
// ends, f fails or the instance stops. Without texts the events have neither body nor packet.
func (c *Client) Tail(ctx context.Context, when string, texts bool, f func(*trace.Event) error) error {
	q := url.Values{"when": {when}}
	if texts {
		q.Set("texts", "")
	}
	body, err := c.open(ctx, http.MethodGet, "/events", q)
	if err != nil {
		return err
	}
	defer body.Close()
	for lines := json.NewDecoder(bufio.NewReader(body)); ; {
		var e trace.Event
		if err := lines.Decode(&e); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("control: the instance does not answer any more: %w", err)
		}
		if err := f(&e); err != nil {
			return err
		}
	}
}
