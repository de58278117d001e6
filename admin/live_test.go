package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
)

const authorization = "Authorization: Bearer " + string(token)

const secret = "the kettle is on"

// fakeLetters keeps dead letters; those that are replayed are gone.
type fakeLetters struct {
	list     []outbox.DeadLetter
	replayed []outbox.LetterFilter
}

func (l *fakeLetters) DeadLetters() outbox.DeadLetters { return l }

func (l *fakeLetters) List(f outbox.LetterFilter) (found []outbox.DeadLetter, _ error) {
	for _, d := range l.list {
		if f.Selects(&d) && len(found) < f.Limit {
			found = append(found, d)
		}
	}
	return found, nil
}

func (l *fakeLetters) Get(id uint64) (outbox.DeadLetter, error) {
	for _, d := range l.list {
		if d.ID == id {
			return d, nil
		}
	}
	return outbox.DeadLetter{}, outbox.ErrNoLetter
}

func (l *fakeLetters) Drop(f outbox.LetterFilter) (n int, _ error) {
	var rest []outbox.DeadLetter
	for _, d := range l.list {
		if !f.Selects(&d) {
			rest = append(rest, d)
		}
	}
	n = len(l.list) - len(rest)
	l.list = rest
	return n, nil
}

func (l *fakeLetters) Replay(_ context.Context, f outbox.LetterFilter) (int, error) {
	l.replayed = append(l.replayed, f)
	if f.Backend == "broken" {
		return 0, errors.New("the disk is full")
	}
	return l.Drop(f)
}

func withEvents(events *trace.Recorder, letters Letters) Options {
	return Options{Events: events, Letters: letters}
}

func chat(id, body string) *event.Event {
	return &event.Event{
		ID: id, Kind: event.Chat, Type: "chat", Direction: event.In, From: "alice@example.org/phone", To: "bob@example.org", User: "alice@example.org",
		Body: body, HasBody: true, Packet: "<message><body>" + body + "</body></message>", Metadata: event.Metadata{"text": body, "n": int64(1)},
	}
}

// remembered returns a recorder with events of these bodies.
func remembered(bodies ...string) *trace.Recorder {
	r := trace.New()
	for i, body := range bodies {
		r.Add(&trace.Arrival{Event: chat(strings.Repeat("a", i+1), body), Came: time.Now(), Fate: trace.Kept, Destinations: []trace.Delivery{{Destination: "crm", State: trace.Waiting}}})
	}
	return r
}

func someLetters() *fakeLetters {
	return &fakeLetters{list: []outbox.DeadLetter{
		{ID: 3, Event: chat("a", secret), Backend: "crm", Reason: "permanent", Err: "answered 400", Attempts: 1, Died: time.Unix(1, 0)},
		{ID: 4, Event: chat("b", secret), Reason: "filter", Died: time.Unix(2, 0)},
	}}
}

// post sends a request as the page does.
func post(t *testing.T, addr, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest("POST", "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(raw), resp.Header}
}

// liveStream is the stream of a page.
type liveStream struct {
	t     *testing.T
	body  io.ReadCloser
	lines *bufio.Scanner
}

func follow(t *testing.T, addr string) *liveStream {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+addr+"/api/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream answers %d %v", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return &liveStream{t, resp.Body, lines}
}

// next returns the next message of a name.
func (s *liveStream) next(name string) string {
	s.t.Helper()
	for found := false; s.lines.Scan(); {
		line := s.lines.Text()
		if found {
			return strings.TrimPrefix(line, "data: ")
		}
		found = line == "event: "+name
	}
	s.t.Fatalf("the stream ends before %s: %v", name, s.lines.Err())
	return ""
}

// TestLive: the stream tells how everything stands and which events come and what becomes
// of them, without what anybody has written, and ends with the server.
func TestLive(t *testing.T) {
	events := trace.New()
	o := withEvents(events, &fakeLetters{})
	o.Gatherer = prometheus.NewRegistry()
	o.Status = func() any { return map[string]int{"answer": 42} }
	o.Ready = func() []string { return []string{"the disk is full"} }
	s, err := New(config.Admin{Listen: "127.0.0.1:0", Token: token}, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stream := follow(t, s.Addr().String())
	if got := stream.next("hello"); got != `{"changes":true}` {
		t.Errorf("hello: %s", got)
	}
	if got := stream.next("sample"); !strings.Contains(got, `"events":0`) || !strings.Contains(got, `"not_ready":["the disk is full"],"status":{"answer":42}`) {
		t.Errorf("sample: %s", got)
	}
	if got := stream.next("tail"); got != "[]" {
		t.Errorf("tail: %s", got)
	}
	for i := range tailEvents + 5 {
		e := chat(strings.Repeat("a", i+1), secret)
		events.Add(&trace.Arrival{Event: e, Came: time.Now(), Fate: trace.Kept, Destinations: []trace.Delivery{{Destination: "crm", State: trace.Waiting}}})
	}
	var rows []row
	for len(rows) < tailEvents || rows[0].Number < tailEvents+5 {
		if err := json.Unmarshal([]byte(stream.next("tail")), &rows); err != nil {
			t.Fatal(err)
		}
	}
	want := []delivery{{Name: "crm", State: trace.Waiting}}
	if diff := cmp.Diff(want, rows[0].Destinations); diff != "" || len(rows) != tailEvents {
		t.Errorf("%d rows; %s", len(rows), diff)
	}
	said := false
	events.Settle("crm", time.Now(), func() (trace.Settled, bool) {
		said = !said
		return trace.Settled{ID: strings.Repeat("a", tailEvents+5), State: trace.Delivered, Tries: 1}, said
	})
	tail := stream.next("tail")
	if !strings.Contains(tail, `"destinations":[{"name":"crm","state":"delivered","tries":1}]`) {
		t.Errorf("after the delivery: %s", tail)
	}
	if strings.Contains(tail, "kettle") {
		t.Errorf("the stream has what somebody wrote: %s", tail)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	if _, err := io.Copy(io.Discard, stream.body); err != nil {
		t.Errorf("the stream is cut off instead of ended: %v", err)
	}
}

// TestStreamsAreBounded: pages that are open take no place of other requests, and their own
// number is bounded.
func TestStreamsAreBounded(t *testing.T) {
	addr := start(t, config.Admin{Listen: "127.0.0.1:0", Token: token}, withEvents(trace.New(), &fakeLetters{}))
	streams := make([]*liveStream, maxStreams)
	for i := range streams {
		streams[i] = follow(t, addr)
		streams[i].next("hello")
	}
	if a := ask(t, "GET", addr, "/api/live", authorization); a.code != http.StatusServiceUnavailable || a.body != "too many live pages are open; close one\n" {
		t.Errorf("one more stream is answered %d %q", a.code, a.body)
	}
	for range maxConnections {
		dial(t, addr, "")
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/api/letters"} {
		if a := ask(t, "GET", addr, path, authorization); a.code != http.StatusOK {
			t.Errorf("%s answers %d", path, a.code)
		}
	}
	streams[0].next("sample")
	streams[0].body.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		req, err := http.NewRequest("GET", "http://"+addr+"/api/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token.Reveal())
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a stream that has ended keeps its place")
		}
	}
}

// TestPageAPI: who may ask for what, and what a wrong request is told.
func TestPageAPI(t *testing.T) {
	const ours, foreign, kind = "Content-Type: application/json", "Origin: https://evil.example", "Content-Type: text/plain"
	open := start(t, config.Admin{Listen: "127.0.0.1:0"}, withEvents(remembered(secret), someLetters()))
	letters := someLetters()
	guarded := start(t, config.Admin{Listen: "127.0.0.1:0", Token: token}, withEvents(remembered(secret), letters))
	for _, tc := range []struct {
		name, addr, method, path, body string
		header                         []string
		code                           int
		contains                       string
	}{
		{"list", guarded, "GET", "/api/letters", "", []string{authorization}, 200, `"number":3,"backend":"crm","reason":"permanent","error":"answered 400","attempts":1`},
		{"list without the token", guarded, "GET", "/api/letters", "", nil, 401, "Bearer TOKEN"},
		{"list where none is set", open, "GET", "/api/letters", "", nil, 200, `"number":4`},
		{"next page", guarded, "GET", "/api/letters?after=4", "", []string{authorization}, 200, "[]"},
		{"wrong page", guarded, "GET", "/api/letters?after=x", "", []string{authorization}, 400, "after is not a number"},
		{"text", guarded, "GET", "/api/letters/text?number=3", "", []string{authorization}, 200, secret},
		{"text of none", guarded, "GET", "/api/letters/text?number=9", "", []string{authorization}, 404, "no dead letter 9"},
		{"text where no token is set", open, "GET", "/api/letters/text?number=3", "", nil, 403, "set token"},
		{"text of an event", guarded, "GET", "/api/events/text?number=1", "", []string{authorization}, 200, secret},
		{"text of an event to come", guarded, "GET", "/api/events/text?number=2", "", []string{authorization}, 404, "is not remembered"},
		{"text of event 0", guarded, "GET", "/api/events/text?number=0", "", []string{authorization}, 404, "is not remembered"},
		{"text of an event where no token is set", open, "GET", "/api/events/text?number=1", "", nil, 403, "set token"},
		{"replay without the token", guarded, "POST", "/api/letters/replay", `{"number":3}`, []string{ours}, 401, "Bearer TOKEN"},
		{"replay where none is set", open, "POST", "/api/letters/replay", `{"number":3}`, []string{ours}, 403, "set token"},
		{"replay by a foreign page", guarded, "POST", "/api/letters/replay", `{"number":3}`, []string{authorization, ours, foreign}, 403, "other web pages"},
		{"replay by a form", guarded, "POST", "/api/letters/replay", `{"number":3}`, []string{authorization, kind}, 415, "application/json"},
		{"replay by a link", guarded, "GET", "/api/letters/replay?number=3", "", []string{authorization}, 405, "only POST"},
		{"replay nothing", guarded, "POST", "/api/letters/replay", `{}`, []string{authorization, ours}, 400, "either number or backend"},
		{"replay what is unknown", guarded, "POST", "/api/letters/replay", `{"all":true}`, []string{authorization, ours}, 400, "unknown field"},
		{"replay too much", guarded, "POST", "/api/letters/replay", `{"backend":"` + strings.Repeat("x", maxBody) + `"}`, []string{authorization, ours}, 400, "at most 65536 bytes"},
		{"replay that fails", guarded, "POST", "/api/letters/replay", `{"backend":"broken"}`, []string{authorization, ours}, 500, "the log says more"},
		{"drop all of one", guarded, "POST", "/api/letters/drop", `{"backend":"crm"}`, []string{authorization, ours}, 400, "eventpusher dlq drop"},
		{"replay one", guarded, "POST", "/api/letters/replay", `{"number":3}`, []string{authorization, ours}, 200, `{"count":1}`},
		{"drop one", guarded, "POST", "/api/letters/drop", `{"number":4}`, []string{authorization, ours}, 200, `{"count":1}`},
		{"drop it again", guarded, "POST", "/api/letters/drop", `{"number":4}`, []string{authorization, ours}, 200, `{"count":0}`},
		{"try without the token", guarded, "POST", "/api/try", `{}`, []string{ours}, 401, "Bearer TOKEN"},
		{"try by a form", open, "POST", "/api/try", `{}`, []string{kind}, 415, "application/json"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := post(t, tc.addr, tc.path, tc.body, tc.header...)
			if tc.method == "GET" {
				a = ask(t, "GET", tc.addr, tc.path, tc.header...)
			}
			if a.code != tc.code || !strings.Contains(a.body, tc.contains) {
				t.Errorf("%d %q, want %d with %q", a.code, a.body, tc.code, tc.contains)
			}
			if tc.contains != secret && strings.Contains(a.body, "kettle") {
				t.Errorf("the answer has what somebody wrote: %s", a.body)
			}
		})
	}
	if len(letters.replayed) != 2 || letters.replayed[1].ID != 3 || letters.replayed[0].Until.IsZero() {
		t.Errorf("replayed: %+v", letters.replayed)
	}
}

// try asks what an expression says.
func try(t *testing.T, addr, request string) trialResult {
	t.Helper()
	a := post(t, addr, "/api/try", request, authorization, "Content-Type: application/json")
	if a.code != http.StatusOK {
		t.Fatalf("%d %s", a.code, a.body)
	}
	var r trialResult
	d := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	d.UseNumber()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTrial(t *testing.T) {
	events := remembered("tea", "coffee", "tea")
	events.Add(&trace.Arrival{Event: chat("dropped", "tea"), Came: time.Now(), Fate: trace.Dropped, By: "no tea"})
	for range 3 * trialStep {
		events.Add(&trace.Arrival{Event: chat("many", "water"), Came: time.Now(), Fate: trace.Kept})
	}
	guarded := start(t, config.Admin{Listen: "127.0.0.1:0", Token: token}, withEvents(events, &fakeLetters{}))
	open := start(t, config.Admin{Listen: "127.0.0.1:0"}, withEvents(events, &fakeLetters{}))
	for _, tc := range []struct {
		name, addr, request string
		want                trialResult // without Rows
		rows                int
	}{
		{"filter", guarded, `{"keep":"event.body == \"tea\""}`, trialResult{Examined: 304, Passed: 3, Dropped: 301, Texts: true}, 3 + trialRows},
		{"when", guarded, `{"when":true,"keep":"event.body == \"tea\""}`, trialResult{Examined: 303, Passed: 2, Dropped: 301, Texts: true}, 2 + trialRows},
		{"text in metadata", guarded, `{"keep":"metadata.text == \"coffee\""}`, trialResult{Examined: 304, Passed: 1, Dropped: 303, Texts: true}, 1 + trialRows},
		{"fails", guarded, `{"keep":"metadata.absent > 1"}`, trialResult{Examined: 304, Failed: 304, Texts: true}, trialRows},
		{"no token: no text", open, `{"keep":"event.body == \"tea\" or metadata.text == \"tea\""}`, trialResult{Examined: 304, Dropped: 304}, trialRows},
		{"no token: numbers", open, `{"keep":"metadata.n == 1"}`, trialResult{Examined: 304, Passed: 304}, trialRows},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := try(t, tc.addr, tc.request)
			if len(got.Rows) != tc.rows {
				t.Errorf("%d rows, want %d", len(got.Rows), tc.rows)
			}
			got.Rows = nil
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	adds := try(t, guarded, `{"keep":"event.body == \"coffee\"","metadata":{"said":"event.body","n":"1 + 1"}}`).Rows
	last := adds[len(adds)-1]
	if diff := cmp.Diff(event.Metadata{"said": "coffee", "n": json.Number("2")}, last.Metadata); diff != "" || last.Verdict != "passes" || last.Number != 2 {
		t.Errorf("%+v: %s", last, diff)
	}
}

// TestTrialFaults: a fault is at its place, counted in characters.
func TestTrialFaults(t *testing.T) {
	addr := start(t, config.Admin{Listen: "127.0.0.1:0", Token: token}, withEvents(remembered("tea"), &fakeLetters{}))
	got := try(t, addr, `{"keep":"\"Tür\" == event.bodi","metadata":{"id":"event.id","ok":"event.kind","bad":"lower(event.fro)"}}`)
	var places []string
	for _, f := range got.Faults {
		places = append(places, f.Key+" "+strings.TrimSpace(f.Text))
	}
	want := []string{
		"keep unknown field event.bodi (at character 16)",
		"metadata.bad unknown field event.fro (at character 13)",
	}
	if diff := cmp.Diff(want, places); diff != "" || got.Examined != 0 {
		t.Errorf("%d examined, %s", got.Examined, diff)
	}
	if f := got.Faults[0]; f.Column != 16 || !strings.HasPrefix(f.Remedy, "did you mean event.body?") || f.Warning {
		t.Errorf("%+v", f)
	}
}
