package e2e

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"eventpusher/internal/xmppserver"
)

// TestHTTPTrouble lets the HTTP receiver refuse, hang and answer 500, one after
// the other. The others get everything in the meantime, without a single event
// settled for it, and afterwards it gets everything too.
func TestHTTPTrouble(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	w := prepareWorld(t)
	w.start(server.Addr(), "")
	session, err := server.Accept(contextFor(t, limit))
	if err != nil {
		t.Fatal(err)
	}
	const perPhase = 200
	sent := 0
	send := func() {
		t.Helper()
		for range perPhase {
			sent++
			if err := session.Send(numbered(0, sent)); err != nil {
				t.Fatal(err)
			}
		}
		w.consumer.Wait(2 * sent)
		w.sns.WaitMessages(pmTopic, sent)
	}
	send()
	w.sink.Wait(sent)
	await(t, "the first settlements", func() bool { return w.backend("http").Delivered == perPhase })
	for _, phase := range []struct {
		name  string
		begin func()
	}{
		{"refused", w.sink.Refuse},
		{"hung", func() { w.sink.Hang(); w.sink.Accept() }},
		{"500", func() { w.sink.Answer(http.StatusInternalServerError) }},
	} {
		phase.begin()
		send()
		if s := w.backend("http"); s.Delivered != perPhase || s.Waiting+s.InFlight != sent-perPhase || s.DeadLetters+s.Shed+s.Lost != 0 {
			t.Errorf("%s: %+v, want nothing settled since the trouble began, %d sent", phase.name, s, sent)
		}
		if s := w.backend("rabbit"); s.DeadLetters+s.Shed+s.Failed != 0 {
			t.Errorf("%s: rabbit is touched: %+v", phase.name, s)
		}
	}
	w.sink.Answer(http.StatusOK)
	await(t, "what has waited", func() bool { return w.backend("http").Delivered == uint64(sent) })
	w.allOnce(t, sent)
}

// allOnce checks that every service has each of the messages of round 0, the HTTP
// receiver in the order of their conversations.
func (w *world) allOnce(t *testing.T, sent int) {
	t.Helper()
	for name, got := range w.received(t) {
		missing := 0
		for n := 1; n <= sent; n++ {
			if !got.has(0, n) {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("%s lost %d of %d messages", name, missing, sent)
		}
	}
	last, seen := make(map[[2]int]int), make(map[int]bool)
	for _, r := range w.sink.Requests() {
		if r.Status != http.StatusOK {
			continue
		}
		n, err := strconv.Atoi(strings.TrimPrefix(r.Form.Get("message"), "0 "))
		if err != nil {
			t.Fatal(err)
		}
		if seen[n] {
			continue
		}
		seen[n] = true
		key := [2]int{n % 7, n % 11} // as numbered has it
		if n < last[key] {
			t.Errorf("message %d after %d of the same conversation", n, last[key])
		}
		last[key] = n
	}
}
