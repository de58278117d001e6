//go:build linux

package ejabberd_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/harness"
)

// program runs the whole program on a server's component port and returns a function
// that reads its metrics.
func program(t *testing.T, s *harness.XMPPServer, sink *harness.Sink) (metric func(name string) int) {
	t.Helper()
	cfg, problems := config.Parse(fmt.Appendf(nil, `
[component]
address = %q
name = %q
secret = %q
[general]
hosts = [%q]
[admin]
listen = "127.0.0.1:0"
[outbox]
path = %q
[[modules.mod_event_pusher.http.handlers]]
path = "/shapes"
[outgoing_pools.http.http_pool.connection]
host = %q
`, s.ComponentAddr(s.Component), s.Component, s.Secret, s.Domain, t.TempDir(), sink.URL()), nil, t.TempDir())
	if cfg == nil {
		t.Fatalf("configuration: %v", problems)
	}
	a, err := app.New(cfg, app.Options{Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func(name string) int {
		resp, err := http.Get("http://" + a.AdminAddr().String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)`).FindSubmatch(text)
		if m == nil {
			return 0
		}
		f, _ := strconv.ParseFloat(string(m[1]), 64)
		return int(f)
	}
}

// shapes makes what stands beside the body of a message: any well-formed XML.
type shapes struct{ *rand.Rand }

func (r shapes) pick(of ...string) string { return of[r.IntN(len(of))] }

func (r shapes) text(n int) string {
	odd := []string{
		"a", "Z", " ", "'", "&quot;", "&lt;", "&gt;", "&amp;", "]]&gt;", "\n", "\t", "&#13;", "&#10;", "\u0085", "\u2028", "\u007f", "\u00e9", "e\u0301",
		"\u202e", "\ufffd", "\U0001F600", "\U0010FFFD", "\u0627\u0644", "&apos;", "%s", "{{", "\\", "\u200d",
	}
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(odd[r.IntN(len(odd))])
	}
	return b.String()
}

func (r shapes) name() string {
	return r.pick("x", "message", "body", "event", "forwarded", "hello", "lost", "stream", "a.b-c_d", "\u65e5\u672c", "result", "delay", "iq")
}

func (r shapes) namespace() string {
	return r.pick("", "urn:x", feedNS, "urn:xmpp:forward:0", "jabber:client", "jabber:component:accept", "http://etherx.jabber.org/streams", strings.Repeat("urn:long:", 500))
}

// element is of any depth and width; n bounds the elements.
func (r shapes) element(n int) string {
	name := r.name()
	attributes := ""
	for i := range r.IntN(4) {
		attributes += fmt.Sprintf(" a%d=\"%s\"", i, r.text(r.IntN(40)))
	}
	if r.IntN(2) == 0 {
		attributes += fmt.Sprintf(" xmlns='%s'", r.namespace())
	}
	inner := r.text(r.IntN(30))
	for n > 1 && r.IntN(3) > 0 {
		part := 1 + r.IntN(n-1)
		inner += r.element(part)
		n -= part
	}
	return fmt.Sprintf("<%s%s>%s</%s>", name, attributes, inner, name)
}

// beside returns one shape, and attributes for the message itself.
func (r shapes) beside(i int) (inner, attributes string) {
	switch i % 12 {
	case 0: // deep: 1100 is more than leaves the server, and far less than ends it
		return deep([]int{62, 500, 980, 1100}[r.IntN(4)]), ""
	case 1: // an attribute as long as one can be
		return fmt.Sprintf("<x xmlns='urn:x' a=\"%s\"/>", r.text(64<<10)), ""
	case 2: // many namespaces
		var b strings.Builder
		for n := range 300 {
			fmt.Fprintf(&b, "<p%d:x xmlns:p%d='urn:%d' p%d:a='1'/>", n, n, n, n)
		}
		return b.String(), ""
	case 3: // a prefix that the message declares, which the server drops
		return "<q:x q:a='1'><q:y/></q:x>", " xmlns:q='urn:q'"
	case 4: // as large as it can be after the server has escaped it
		return "<x xmlns='urn:x'>" + strings.Repeat("'", 400_000+r.IntN(400_000)) + "</x>", ""
	case 5: // what looks like the feed's own
		return fmt.Sprintf("<event xmlns='%s' source='nonode@nohost' epoch='x' seq='1' kind='offline' user='bob@localhost/x' t='1.000'/>"+
			"<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>inner</body></message></forwarded>", feedNS), ""
	case 6: // wide
		return strings.Repeat(fmt.Sprintf("<x xmlns='%s'/>", r.namespace()), 150), ""
	case 7:
		return "<![CDATA[<body>no body</body>" + r.pick("", "&amp;", "]]") + "]]><x xmlns='urn:x'><![CDATA[<" + r.text(20) + "]]></x>", ""
	case 8: // many attributes
		var b strings.Builder
		for n := range 1000 {
			fmt.Fprintf(&b, " a%d=\"%s\"", n, r.text(8))
		}
		return "<x xmlns='urn:x'" + b.String() + "/>", ""
	case 9: // long names
		name := strings.Repeat("n", 1+r.IntN(60_000))
		return fmt.Sprintf("<%s xmlns='urn:x' %s='1'/>", name, name), ""
	}
	return "<w xmlns='urn:w'>" + r.element(1+r.IntN(60)) + "</w>", ""
}

func deep(n int) string {
	return "<x xmlns='urn:deep'>" + strings.Repeat("<d>", n) + strings.Repeat("</d>", n) + "</x>"
}

// TestShapes: no message, however made, stops the feed or hides the next one. The real
// server, the module and the program take over a hundred shapes of messages, each
// followed by a plain one.
func TestShapes(t *testing.T) {
	t.Parallel()
	const n = 12 * 12
	s := harness.Ejabberd(t, harness.EjabberdOptions{EventFeed: true})
	sink := harness.HTTPSink(t)
	metric := program(t, s, sink)
	alice, bob := s.Login(t, "alice", "r1"), s.Login(t, "bob", "desk")
	bob.Presence()
	r := shapes{rand.New(rand.NewPCG(9, 114))}
	for i := range n {
		inner, attributes := r.beside(i)
		body := fmt.Sprintf("<body>shape %d</body>", i)
		if r.IntN(2) == 0 {
			inner = body + inner
		} else {
			inner += body
		}
		alice.Sendf("<message type='chat' id='s%d' to='bob@localhost'%s>%s</message>", i, attributes, inner)
		alice.Sendf("<message type='chat' id='p%d' to='bob@localhost'><body>plain %d</body></message>", i, i)
		if i%10 == 9 {
			alice.Ping()
		}
	}
	var plain []string
	var told map[string]int
	for deadline := time.Now().Add(harness.WaitLimit); ; time.Sleep(100 * time.Millisecond) {
		plain, told = nil, make(map[string]int)
		for _, req := range sink.Requests() {
			text := req.Form.Get("message")
			told[text]++
			if number, ok := strings.CutPrefix(text, "plain "); ok {
				plain = append(plain, number)
			}
		}
		if len(plain) >= n || time.Now().After(deadline) {
			break
		}
	}
	// Messages of one conversation are published in order.
	if want := numbers(0, n); !slices.Equal(plain, want) {
		t.Errorf("plain messages: %v", plain)
	}
	shaped, twice := 0, 0
	for text, times := range told {
		if strings.HasPrefix(text, "shape ") {
			shaped++
		}
		if times > 1 {
			twice++
		}
	}
	results := func(result string) int {
		return metric(fmt.Sprintf("eventpusher_feed_events_total{result=%q}", result))
	}
	unread := results("undecodable")
	t.Logf("%d shapes published, %d undecodable", shaped, unread)
	if shaped+unread != n || unread == 0 || shaped < n/2 || twice > 0 {
		t.Errorf("%d shapes published, %d undecodable, %d texts twice; want %d", shaped, unread, twice, n)
	}
	for _, result := range []string{"gap", "duplicate", "unexpected", "malformed", "turned_away"} {
		if got := results(result); got > 0 {
			t.Errorf("%d events %s", got, result)
		}
	}
}
