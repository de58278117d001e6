package component

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/jid"
	"eventpusher/internal/xmppserver"
)

const pingPayload = "<ping xmlns='urn:xmpp:ping'/>"

// ready waits until the link takes requests.
func (w *watched) ready() {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); w.Send([]byte("<presence type='probe' to='nobody@example.org' from='"+w.cfg.Name+"'/>")) != nil; {
		if time.Now().After(deadline) {
			w.t.Fatal("the link never takes stanzas")
		}
	}
}

// asked is a request under way.
type asked struct {
	reply Reply
	err   error
}

func (w *watched) ask(ctx context.Context, r Request) <-chan asked {
	done := make(chan asked, 1)
	go func() {
		reply, err := w.Request(ctx, r)
		done <- asked{reply, err}
	}()
	return done
}

func TestRequestIsAnsweredByWhoWasAsked(t *testing.T) {
	const to = " to='events.example.org'"
	refused := &StanzaError{Type: "wait", Condition: "resource-constraint", Text: "not <now>", App: xml.Name{Space: "urn:x", Local: "busy"}}
	for _, tc := range []struct {
		name, to string
		others   []string // replies that do not count; ID stands for the request's
		reply    string
		raw      string
		err      error
	}{
		{"a session", "alice@example.org/R1", []string{
			"<iq type='result' id='ID' from='mallory@example.org/R1'" + to + "/>",
			"<iq type='result' id='ID' from='alice@example.org/r1'" + to + "/>",
			"<iq type='result' id='ID' from='alice@example.org'" + to + "/>",
			"<iq type='error' id='ID' from='example.org'" + to + "/>",
			"<iq type='result' id='ID'" + to + "/>",
			"<iq type='result' id='other' from='alice@example.org/R1'" + to + "/>",
			"<iq type='result' from='alice@example.org/R1'" + to + "/>",
		}, "<iq type='result' id='ID' from='Alice@Example.ORG/R1'" + to + "><a xmlns='b'>&lt;</a></iq>",
			"<iq type='result' id='ID' from='Alice@Example.ORG/R1'" + to + "><a xmlns='b'>&lt;</a></iq>", nil},
		{"an account", "alice@example.org", []string{"<iq type='result' id='ID'" + to + "/>"},
			"<iq id='ID' type='result' from='alice@example.org'" + to + "></iq>", "<iq id='ID' type='result' from='alice@example.org'" + to + "></iq>", nil},
		{"the server", "example.org", []string{"<iq type='result' id='ID' from='example.org/x'" + to + "/>"},
			"<iq type='result' id='ID' from='example.org'" + to + "/>", "<iq type='result' id='ID' from='example.org'" + to + "/>", nil},
		{"the server without its name", "EXAMPLE.org", nil,
			"<iq type='result' id='ID'" + to + "/>", "<iq type='result' id='ID'" + to + "/>", nil},
		{"another server", "example.net", []string{"<iq type='result' id='ID'" + to + "/>"},
			"<iq type='result' id='ID' from='example.net'" + to + "/>", "<iq type='result' id='ID' from='example.net'" + to + "/>", nil},
		{"refused", "alice@example.org/r1", nil,
			"<iq type='error' id='ID' from='alice@example.org/r1'" + to + "><a xmlns='b'><error type='cancel'/></a><error type='wait'>" +
				"<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>not &lt;now></text><busy xmlns='urn:x'/>" +
				"<resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></resource-constraint></error></iq>", "", refused},
		{"refused without a reason", "alice@example.org/r1", nil, "<iq type='error' id='ID' from='alice@example.org/r1'" + to + "/>", "",
			&StanzaError{Type: "cancel", Condition: "undefined-condition"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := startServer(t, serverOptions())
			w := newWatched(t, testConfig(server.Addr()), nil).start()
			session := accept(t, server)
			w.ready()
			receive(t, session)
			done := w.ask(t.Context(), Request{To: tc.to, Type: Set, From: "push@events.example.org/it's", Payload: []byte("<q xmlns='u'/>")})
			got := receive(t, session)
			want := xmppserver.Stanza{Name: "iq", Type: "set", ID: got.ID, From: "push@events.example.org/it's", To: tc.to, Inner: "<q xmlns='u'/>"}
			if diff := cmp.Diff(want, got); diff != "" || len(got.ID) < 20 {
				t.Errorf("the request, id %q (-want +got):\n%s", got.ID, diff)
			}
			for _, other := range tc.others {
				send(t, session, strings.ReplaceAll(other, "ID", got.ID))
			}
			send(t, session, logged("barrier"))
			w.wantFact("barrier")
			select {
			case a := <-done:
				t.Fatalf("answered by a stranger: %+v", a)
			default:
			}
			if n := w.counter("eventpusher_iqs_total", "reply_unasked"); n != float64(len(tc.others)) {
				t.Errorf("%v replies were counted as unasked, want %d", n, len(tc.others))
			}
			send(t, session, strings.ReplaceAll(tc.reply, "ID", got.ID))
			a := <-done
			if diff := cmp.Diff(tc.err, a.err); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(strings.ReplaceAll(tc.raw, "ID", got.ID), string(a.reply.Raw)); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
			if a.err == nil && a.reply.From != jid.Prepare(tc.to) {
				t.Errorf("the reply is from %s", a.reply.From)
			}
			// A second reply is nobody's.
			send(t, session, strings.ReplaceAll(tc.reply, "ID", got.ID)+logged("end"))
			w.wantFact("end")
			if n := w.counter("eventpusher_iqs_total", "reply_unasked"); n != float64(len(tc.others)+1) {
				t.Errorf("%v replies were counted as unasked, want %d", n, len(tc.others)+1)
			}
			w.end()
		})
	}
}

func TestRequestThatCannotBeSent(t *testing.T) {
	server := startServer(t, serverOptions())
	w := newWatched(t, testConfig(server.Addr()), nil).start()
	session := accept(t, server)
	w.ready()
	receive(t, session)
	for name, r := range map[string]Request{
		"no address":        {Type: Get, Payload: []byte(pingPayload)},
		"no type":           {To: "example.org", Payload: []byte(pingPayload)},
		"type of a reply":   {To: "example.org", Type: "result"},
		"from elsewhere":    {To: "example.org", Type: Get, From: "example.org", Payload: []byte(pingPayload)},
		"from below":        {To: "example.org", Type: Get, From: "x.events.example.org", Payload: []byte(pingPayload)},
		"not well-formed":   {To: "example.org", Type: Get, Payload: []byte("<ping xmlns='urn:xmpp:ping'>")},
		"breaks out":        {To: "example.org", Type: Get, Payload: []byte("</iq><iq from='example.org'>")},
		"unbound prefix":    {To: "example.org", Type: Get, Payload: []byte("<x:ping/>")},
		"a comment":         {To: "example.org", Type: Get, Payload: []byte("<!-- -->")},
		"control character": {To: "example.org", Type: Get, Payload: []byte("<a>\x00</a>")},
		"no UTF-8":          {To: "example.org", Type: Get, Payload: []byte("<a>\xff</a>")},
		"too large":         {To: "example.org", Type: Get, Payload: []byte("<a>" + strings.Repeat("x", maxOutgoing) + "</a>")},
	} {
		if _, err := w.Request(t.Context(), r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, stanza := range map[string]string{
		"from elsewhere":     "<message from='alice@example.org' to='bob@example.org'/>",
		"no from":            "<message to='bob@example.org'/>",
		"no to":              "<message from='events.example.org'/>",
		"unknown element":    "<hello from='events.example.org' to='bob@example.org'/>",
		"nearly an iq":       "<iqs from='events.example.org' to='bob@example.org'/>",
		"another namespace":  "<message id='>' from='events.example.org' to='bob@example.org' xmlns='jabber:client'/>",
		"two":                "<message from='events.example.org' to='bob@example.org'/><message from='alice@example.org' to='bob@example.org'/>",
		"end of the stream":  "</stream:stream>",
		"prefixed from":      "<message xmlns:x='y' x:from='events.example.org' to='bob@example.org'/>",
		"nothing":            "",
		"keepalive":          " ",
		"stream error":       "<stream:error/>",
		"declared elsewhere": "<m:message xmlns:m='jabber:component:accept' from='events.example.org' to='bob@example.org'/>",
	} {
		if err := w.Send([]byte(stanza)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// Nothing of all that went out.
	if err := w.Send([]byte("<message from='a@EVENTS.example.org/b' to='bob@example.org'><x xmlns='y'>&gt;</x></message>")); err != nil {
		t.Error(err)
	}
	want := xmppserver.Stanza{Name: "message", From: "a@EVENTS.example.org/b", To: "bob@example.org", Inner: "<x xmlns='y'>&gt;</x>"}
	if diff := cmp.Diff(want, receive(t, session)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.end()
	if _, err := w.Request(t.Context(), Request{To: "example.org", Type: Get, Payload: []byte(pingPayload)}); !isNoLink(err, false) {
		t.Errorf("without a link: %v", err)
	}
	if err := w.Send([]byte("<message from='events.example.org' to='bob@example.org'/>")); !isNoLink(err, false) {
		t.Errorf("Send without a link: %v", err)
	}
}

func isNoLink(err error, sent bool) bool {
	var gone *NoLinkError
	return errors.As(err, &gone) && gone.Sent == sent
}

func TestRequestIsLostWithTheLink(t *testing.T) {
	server := startServer(t, serverOptions())
	w := newWatched(t, testConfig(server.Addr()), nil).start()
	session := accept(t, server)
	w.ready()
	receive(t, session)
	done := w.ask(t.Context(), Request{To: "alice@example.org/r1", Type: Get, Payload: []byte(pingPayload)})
	old := receive(t, session)
	session.Drop()
	if a := <-done; !isNoLink(a.err, true) {
		t.Errorf("%v", a.err)
	}
	// A reply to it on the next stream is nobody's, and its place is free.
	session = accept(t, server)
	send(t, session, fmt.Sprintf("<iq type='result' id='%s' from='alice@example.org/r1' to='events.example.org'/>", old.ID)+logged("behind"))
	w.wantFact("behind")
	if n := w.counter("eventpusher_iqs_total", "reply_unasked"); n != 1 {
		t.Errorf("%v replies counted as unasked", n)
	}
	if n := len(w.requests.slots) + len(w.requests.waiting); n != 0 {
		t.Errorf("%d requests are still kept", n)
	}
	w.end()
}

// Timeouts, by fake time: that of the request, the default one, the context's.
func TestRequestEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := xmppserver.NewUnlistened(serverOptions())
		defer server.Close()
		w := newWatched(t, testConfig("127.0.0.1:1"), nil)
		w.inMemory(server)
		w.start()
		accept(t, server)
		synctest.Wait()
		silent := Request{To: "alice@example.org/r1", Type: Get, Payload: []byte(pingPayload)}
		began := time.Now()
		short := silent
		short.Timeout = 3 * time.Second
		if _, err := w.Request(t.Context(), short); !errors.Is(err, ErrNoReply) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		began = time.Now()
		if _, err := w.Request(t.Context(), silent); !errors.Is(err, ErrNoReply) || time.Since(began) != DefaultRequestTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.Request(ctx, silent); errors.Is(err, ErrNoReply) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		// One more than there are places waits, and in vain.
		waiting := make([]<-chan asked, maxRequests)
		for i := range waiting {
			waiting[i] = w.ask(t.Context(), silent)
		}
		synctest.Wait()
		if _, err := w.Request(t.Context(), short); !errors.Is(err, ErrNoReply) || len(w.requests.slots) != maxRequests {
			t.Errorf("%v, with %d under way", err, len(w.requests.slots))
		}
		for _, done := range waiting {
			if a := <-done; !errors.Is(a.err, ErrNoReply) {
				t.Fatal(a.err)
			}
		}
		synctest.Wait()
		if len(w.requests.waiting) != 0 {
			t.Errorf("%d requests are still kept", len(w.requests.waiting))
		}
		w.end()
	})
}

func TestManyRequestsAtOnce(t *testing.T) {
	server := startServer(t, serverOptions())
	w := newWatched(t, testConfig(server.Addr()), nil).start()
	accept(t, server)
	w.ready()
	var askers sync.WaitGroup
	for range 40 {
		askers.Go(func() {
			for range 50 {
				// The server answers pings by itself.
				if _, err := w.Request(t.Context(), Request{To: testHost, Type: Get, Payload: []byte(pingPayload)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	askers.Wait()
	w.end()
}

// A server that takes nothing any more: Send says so instead of keeping everything.
func TestSendIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serverOptions()
		o.Fault = func(n int) xmppserver.Fault { return xmppserver.Fault{Deaf: n == 1} }
		server := xmppserver.NewUnlistened(o)
		defer server.Close()
		w := newWatched(t, testConfig("127.0.0.1:1"), nil)
		w.inMemory(server)
		w.start()
		session := accept(t, server)
		synctest.Wait()
		sent, err := 0, error(nil)
		for ; err == nil; sent++ {
			err = w.Send([]byte("<message from='events.example.org' to='bob@example.org'/>"))
			synctest.Wait()
		}
		if !errors.Is(err, ErrQueueFull) || sent != ownQueue+2 { // one is being written
			t.Errorf("%v after %d", err, sent)
		}
		session.Drop()
		accept(t, server)
		w.end()
	})
}

func FuzzReplyError(f *testing.F) {
	f.Add([]byte("<iq type='error'><error type='wait'><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>x</text></error></iq>"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		e := parseError(frame)
		if e.Condition == "" || e.Type == "" || len(e.Text) > maxErrorText {
			t.Errorf("%+v", e)
		}
	})
}

// What check lets through is one element that the reference parser reads too, from us.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("<message from='events.example.org' to='bob@example.org'><x xmlns='y'>&gt;</x></message>"))
	f.Add([]byte("<iq id='>' from=\"a@events.example.org\" to='b'/>"))
	c := newChecker(testName)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c.check(b) != nil {
			return
		}
		var q struct {
			XMLName xml.Name
			From    string `xml:"from,attr"`
			To      string `xml:"to,attr"`
		}
		d := xml.NewDecoder(bytes.NewReader(b))
		d.DefaultSpace = "jabber:component:accept"
		if err := d.Decode(&q); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if q.XMLName.Space != d.DefaultSpace || jid.Prepare(q.From).Domain() != testName || q.To == "" {
			t.Errorf("%q went out as %+v", b, q)
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	server := startServer(b, serverOptions())
	w := newWatched(b, testConfig(server.Addr()), nil).start()
	accept(b, server)
	w.ready()
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.Request(context.Background(), Request{To: testHost, Type: Get, Payload: []byte(pingPayload)}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.StopTimer()
	w.end()
}
