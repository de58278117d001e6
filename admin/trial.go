package admin

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/trace"
)

const (
	// trialTime is how long one trial may evaluate.
	trialTime = time.Second
	// trialStep is how many events are copied at once, and trialRows how many of each
	// verdict are shown.
	trialStep = 100
	trialRows = 20
)

// trialRequest is an expression to be tried.
type trialRequest struct {
	// When says that the expression is the when of a destination: only events that the
	// filters have kept are asked about.
	When     bool              `json:"when"`
	Keep     string            `json:"keep"`
	Metadata map[string]string `json:"metadata"`
}

// trialResult is what an expression says about the events that are remembered.
type trialResult struct {
	Faults []filter.Fault `json:"faults"`
	// Examined is the sum of the others. More says that the time was up before all events
	// were examined.
	Examined int  `json:"examined"`
	Passed   int  `json:"passed"`
	Dropped  int  `json:"dropped"`
	Failed   int  `json:"failed"`
	More     bool `json:"more"`
	// Texts says that event.body and texts in metadata were there. Without a token in [admin]
	// they are empty.
	Texts bool       `json:"texts"`
	Rows  []trialRow `json:"rows"` // the newest of each verdict, newest first
}

type trialRow struct {
	row
	Verdict  string         `json:"verdict"` // passes, dropped or failed
	Why      string         `json:"why,omitempty"`
	Metadata event.Metadata `json:"adds,omitempty"`
	Cut      bool           `json:"cut,omitempty"` // judged without its body, which is too large to be remembered
}

// serveTrial evaluates an expression against the last events. It changes nothing.
func (s *Server) serveTrial(w http.ResponseWriter, r *http.Request) {
	var q trialRequest
	if !readJSON(w, r, &q) {
		return
	}
	if q.When && len(q.Metadata) > 0 {
		refuse(w, http.StatusBadRequest, "a when adds no metadata")
		return
	}
	select {
	case s.trying <- struct{}{}:
		defer func() { <-s.trying }()
	case <-r.Context().Done():
		return
	}
	chain, faults := filter.CompileTrial(q.Keep, q.Metadata)
	result := trialResult{Faults: faults, Texts: s.cfg.Token != ""}
	if chain != nil {
		result.examine(&trial{&q, chain, s.cfg.Token != ""}, s.o.Events)
	}
	writeJSON(w, http.StatusOK, result)
}

// trial judges events.
type trial struct {
	*trialRequest
	chain *filter.Chain
	texts bool
}

// examine judges what is remembered, the newest first.
func (t *trialResult) examine(by *trial, events *trace.Recorder) {
	deadline := time.Now().Add(trialTime)
	shown := make(map[string]int)
	for end := events.Last(); end > 0; {
		start := end - min(end, trialStep)
		list, _ := events.After(start, int(end-start))
		for _, e := range slices.Backward(list) {
			if e.Number > end {
				continue // more have come, and others were forgotten
			}
			if by.skips(&e) {
				continue
			}
			if time.Now().After(deadline) {
				t.More = true
				return
			}
			r := by.judge(&e)
			t.count(r.Verdict)
			if shown[r.Verdict]++; shown[r.Verdict] <= trialRows {
				t.Rows = append(t.Rows, r)
			}
		}
		if len(list) == 0 || list[0].Number > start+1 {
			return // the oldest that is remembered
		}
		end = start
	}
}

func (t *trialResult) count(verdict string) {
	t.Examined++
	switch verdict {
	case "passes":
		t.Passed++
	case "dropped":
		t.Dropped++
	default:
		t.Failed++
	}
}

// skips reports whether nobody would ask about the event: filters are not asked about the end
// of an account, nor destinations about what filters have withheld.
func (t *trial) skips(e *trace.Event) bool {
	if t.When {
		return e.Fate == trace.Dropped || e.Fate == trace.Failed || e.Fate == trace.Dead || !filter.Conditional(e.Event.Kind)
	}
	return e.Event.Kind == event.Removed
}

// withoutTexts leaves out the texts, which a filter can have made of what somebody wrote.
func withoutTexts(m event.Metadata) event.Metadata {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(_ string, v any) bool { _, text := v.(string); return text })
	return m
}

func (t *trial) judge(e *trace.Event) trialRow {
	out := trialRow{row: tracedRow(e), Cut: e.Cut}
	asked := e.Event
	if !t.texts {
		asked.Body, asked.Metadata = "", withoutTexts(asked.Metadata)
	}
	switch said := t.chain.Run(&asked); said.Fate {
	case filter.Keep:
		out.Verdict = "passes"
	case filter.Drop:
		out.Verdict = "dropped"
		return out
	default:
		out.Verdict, out.Why = "failed", fmt.Sprint(said.Err)
		return out
	}
	for key := range t.Metadata {
		if out.Metadata == nil {
			out.Metadata = make(event.Metadata)
		}
		out.Metadata[key] = asked.Metadata[key]
	}
	return out
}
