//go:build linux

package prosody_test

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"eventpusher/internal/harness"
)

const waitLimit = harness.WaitLimit

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// received is one message of the module's.
type received struct {
	XMLName xml.Name
	From    string `xml:"from,attr"`
	To      string `xml:"to,attr"`
	Type    string `xml:"type,attr"`
	Hello   *struct {
		Source    string `xml:"source,attr"`
		Epoch     string `xml:"epoch,attr"`
		First     int    `xml:"first,attr"`
		Next      int    `xml:"next,attr"`
		Hosts     string `xml:"hosts,attr"`
		Server    string `xml:"server,attr"`
		PrevEpoch string `xml:"prev-epoch,attr"`
		PrevLast  string `xml:"prev-last,attr"`
		Clean     string `xml:"clean,attr"`
		Token     string `xml:"token,attr"`
	} `xml:"urn:eventpusher:feed:1 hello"`
	Event *struct {
		Source  string `xml:"source,attr"`
		Epoch   string `xml:"epoch,attr"`
		Seq     int    `xml:"seq,attr"`
		Token   string `xml:"token,attr"`
		Kind    string `xml:"kind,attr"`
		User    string `xml:"user,attr"`
		To      string `xml:"to,attr"`
		Room    string `xml:"room,attr"`
		Nick    string `xml:"nick,attr"`
		Members string `xml:"members,attr"`
		Reason  string `xml:"reason,attr"`
		Unacked string `xml:"unacked,attr"`
		ID      string `xml:"id,attr"`
		Count   string `xml:"count,attr"`
		T       string `xml:"t,attr"`
		Reached string `xml:"reached,attr"`
		Contact string `xml:"contact,attr"`
	} `xml:"urn:eventpusher:feed:1 event"`
	Lost *struct {
		Source string `xml:"source,attr"`
		Epoch  string `xml:"epoch,attr"`
		From   int    `xml:"from,attr"`
		To     int    `xml:"to,attr"`
		Token  string `xml:"token,attr"`
	} `xml:"urn:eventpusher:feed:1 lost"`
	Forwarded *struct {
		Inner    string     `xml:",innerxml"`
		Message  *forwarded `xml:"jabber:client message"`
		Presence *forwarded `xml:"jabber:client presence"`
	} `xml:"urn:xmpp:forward:0 forwarded"`
}

type forwarded struct {
	ID   string `xml:"id,attr"`
	From string `xml:"from,attr"`
	To   string `xml:"to,attr"`
	Type string `xml:"type,attr"`
	Body string `xml:"jabber:client body"`
	Show string `xml:"jabber:client show"`
}

// stanza is what was forwarded, or an empty one.
func (r received) stanza() forwarded {
	if r.Forwarded == nil {
		return forwarded{}
	}
	if r.Forwarded.Message != nil {
		return *r.Forwarded.Message
	}
	if r.Forwarded.Presence != nil {
		return *r.Forwarded.Presence
	}
	return forwarded{}
}

// peer speaks the component's half of the protocol, by hand. It checks what
// holds for all that the module sends.
type peer struct {
	t    testing.TB
	conn net.Conn
	d    *xml.Decoder
	in   chan received
	err  chan error

	source, epoch, host string // by the last hello
	token               string // sent with resume, and expected in all that follows; "" as an old component
	last                int    // highest number taken
	acked               int
	ack                 int // acknowledge after so many events; 0: never
	sentBack            int // messages that the host has sent back as errors
}

// connect connects as the server's component and waits until it is accepted.
func connect(t testing.TB, s *harness.XMPPServer) *peer {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); ; <-time.After(20 * time.Millisecond) {
		p, refused := tryConnect(t, s)
		if p != nil {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("the component was refused: %v", refused)
		}
	}
}

// tryConnect is connect, but for a server that has not noticed yet that the component's last
// connection is gone: it refuses another one, and there is no peer.
func tryConnect(t testing.TB, s *harness.XMPPServer) (p *peer, refused xml.StartElement) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.ComponentAddr(s.Component), waitLimit)
	if err != nil {
		t.Fatal(err)
	}
	p = &peer{t: t, conn: conn, in: make(chan received), err: make(chan error, 1), ack: 1, token: rand.Text()}
	p.send("<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='%s'>", s.Component)
	conn.SetReadDeadline(time.Now().Add(waitLimit))
	p.d = xml.NewDecoder(conn)
	root := p.start()
	id := ""
	for _, a := range root.Attr {
		if a.Name.Local == "id" {
			id = a.Value
		}
	}
	digest := sha1.Sum([]byte(id + s.Secret))
	p.send("<handshake>%s</handshake>", hex.EncodeToString(digest[:]))
	if accepted := p.start(); accepted.Name.Local != "handshake" {
		conn.Close()
		return nil, accepted
	}
	p.d.Skip()
	return p, refused
}

// attach connects and reads in the background.
func attach(t testing.TB, s *harness.XMPPServer) *peer {
	t.Helper()
	p := connect(t, s)
	p.conn.SetReadDeadline(time.Time{})
	closed := make(chan struct{})
	go p.read(closed)
	t.Cleanup(func() {
		p.conn.Close()
		for {
			select {
			case <-p.in:
			case <-closed:
				return
			}
		}
	})
	return p
}

// greet waits for hello without reading in the background, and resumes with
// nothing known.
func (p *peer) greet() {
	p.t.Helper()
	start := p.start()
	var r received
	if err := p.d.DecodeElement(&r, &start); err != nil || r.Hello == nil {
		p.t.Fatalf("not a hello: %+v, %v", r, err)
	}
	p.conn.SetReadDeadline(time.Time{})
	p.source, p.epoch, p.host = r.Hello.Source, r.Hello.Epoch, r.From
	p.resumeNothing()
}

func (p *peer) start() xml.StartElement {
	for {
		token, err := p.d.Token()
		if err != nil {
			p.t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			return start
		}
	}
}

func (p *peer) read(closed chan<- struct{}) {
	defer close(closed)
	d := p.d
	for {
		token, err := d.Token()
		if err != nil {
			p.err <- err
			return
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		var r received
		if err := d.DecodeElement(&r, &start); err != nil {
			p.err <- err
			return
		}
		p.in <- r
	}
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	p.conn.SetWriteDeadline(time.Now().Add(waitLimit))
	if _, err := fmt.Fprintf(p.conn, format, args...); err != nil {
		p.t.Fatalf("the component's connection: %v", err)
	}
}

// take returns the next message of the module's. Messages without any of its
// elements are somebody else's and passed over.
func (p *peer) take() received {
	p.t.Helper()
	r, err := p.tryTake(waitLimit)
	if err != nil {
		p.t.Fatalf("waiting for the module: %v", err)
	}
	return r
}

func (p *peer) tryTake(limit time.Duration) (received, error) {
	deadline := time.After(limit)
	for {
		select {
		case r := <-p.in:
			if r.Hello == nil && r.Event == nil && r.Lost == nil {
				p.other(r)
				continue
			}
			if r.Type != "" || r.To != "events.localhost" {
				p.t.Errorf("a message to %s of type %q", r.To, r.Type)
			}
			return r, nil
		case err := <-p.err:
			p.err <- err
			return received{}, err
		case <-deadline:
			return received{}, fmt.Errorf("nothing within %s", limit)
		}
	}
}

// other takes what is not the module's. A host sends back what nobody handles.
func (p *peer) other(r received) {
	if r.Type == "error" && r.From == p.host && r.To == "events.localhost" {
		p.sentBack++
	}
}

// hello waits for the greeting and remembers the source.
func (p *peer) hello() received {
	p.t.Helper()
	r := p.take()
	if r.Hello == nil {
		p.t.Fatalf("not a hello: %+v", r)
	}
	p.source, p.epoch, p.host = r.Hello.Source, r.Hello.Epoch, r.From
	return r
}

func (p *peer) control(element string) {
	p.t.Helper()
	p.send("<message from='events.localhost' to='%s'>%s</message>", p.host, element)
}

func (p *peer) resume(epoch string, seq int) {
	p.t.Helper()
	p.control(fmt.Sprintf("<resume xmlns='urn:eventpusher:feed:1' source='%s' epoch='%s' seq='%d'%s/>", p.source, epoch, seq, p.tokenAttribute()))
	p.last, p.acked = seq, seq
}

// resumeNothing says that nothing of the source is known.
func (p *peer) resumeNothing() {
	p.t.Helper()
	p.control(fmt.Sprintf("<resume xmlns='urn:eventpusher:feed:1' source='%s'%s/>", p.source, p.tokenAttribute()))
	p.last = -1
}

func (p *peer) tokenAttribute() string {
	if p.token == "" {
		return ""
	}
	return " token='" + p.token + "'"
}

func (p *peer) acknowledge(seq int) {
	p.t.Helper()
	p.control(fmt.Sprintf("<ack xmlns='urn:eventpusher:feed:1' source='%s' epoch='%s' seq='%d'/>", p.source, p.epoch, seq))
	p.acked = seq
}

// event returns the next event, which must be the one after the last one, and
// acknowledges it as often as p.ack says.
func (p *peer) event() received {
	p.t.Helper()
	r := p.take()
	switch {
	case r.Event == nil:
		p.t.Fatalf("not an event: hello %+v, lost %+v", r.Hello, r.Lost)
	case r.Event.Source != p.source || r.Event.Epoch != p.epoch:
		p.t.Fatalf("event of source %s, epoch %s; want %s, %s", r.Event.Source, r.Event.Epoch, p.source, p.epoch)
	case r.Event.Token != p.token:
		p.t.Fatalf("event %d with the token %q, want %q", r.Event.Seq, r.Event.Token, p.token)
	case p.last >= 0 && r.Event.Seq != p.last+1:
		p.t.Fatalf("event %d follows %d", r.Event.Seq, p.last)
	}
	p.last = r.Event.Seq
	if p.ack > 0 && p.last-p.acked >= p.ack {
		p.acknowledge(p.last)
	}
	return r
}

// lost returns the next announcement of a loss.
func (p *peer) lost() (from, to int) {
	p.t.Helper()
	r := p.take()
	if r.Lost == nil {
		p.t.Fatalf("not a loss: %+v %+v", r.Hello, r.Event)
	}
	if r.Lost.Source != p.source || r.Lost.Epoch != p.epoch || r.Lost.Token != p.token || r.From != p.host {
		p.t.Fatalf("loss %+v from %s, want source %s, epoch %s, token %q from %s", *r.Lost, r.From, p.source, p.epoch, p.token, p.host)
	}
	p.last = r.Lost.To
	return r.Lost.From, r.Lost.To
}

// until returns the events up to the sending of the message with that id.
func (p *peer) until(id string) []received {
	p.t.Helper()
	var all []received
	for {
		r := p.event()
		if r.Event.Kind == "message-sent" && r.stanza().ID == id {
			return all
		}
		all = append(all, r)
	}
}

// silent fails when anything of the module's comes before the answer to a ping of the
// component's: Prosody is one thread, and one stream keeps its order.
func (p *peer) silent() {
	p.t.Helper()
	p.send("<iq type='get' id='silence' from='events.localhost' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
	deadline := time.After(waitLimit)
	for {
		select {
		case r := <-p.in:
			if r.Event != nil || r.Lost != nil || r.Hello != nil {
				p.t.Fatalf("not silent: hello %+v, event %+v, lost %+v", r.Hello, r.Event, r.Lost)
			}
			p.other(r)
			if r.XMLName.Local == "iq" {
				return
			}
		case err := <-p.err:
			p.t.Fatal(err)
		case <-deadline:
			p.t.Fatal("no answer to a ping")
		}
	}
}

// drop resets the connection.
func (p *peer) drop() {
	p.conn.(*net.TCPConn).SetLinger(0)
	p.conn.Close()
}

// closed waits until the server has ended the connection.
func (p *peer) closed() {
	p.t.Helper()
	for {
		if _, err := p.tryTake(waitLimit); err == io.EOF || err != nil && strings.Contains(err.Error(), "EOF") {
			return
		} else if err != nil {
			p.t.Fatalf("the connection did not end: %v", err)
		}
	}
}

// sorted is a list with its words in order.
func sorted(list string) string {
	words := strings.Fields(list)
	slices.Sort(words)
	return strings.Join(words, " ")
}

// line is an event in one line: kind, user, what else it says, and the id,
// type and body of what is forwarded.
func (r received) line() string {
	e := r.Event
	line := e.Kind
	for _, part := range []struct{ name, value string }{
		{"", e.User}, {"to=", e.To}, {"room=", e.Room}, {"nick=", e.Nick}, {"members=", sorted(e.Members)}, {"reason=", e.Reason},
		{"unacked=", e.Unacked}, {"id=", e.ID}, {"count=", e.Count}, {"reached=", e.Reached},
	} {
		if part.value != "" {
			line += " " + part.name + part.value
		}
	}
	if r.Forwarded == nil {
		return line
	}
	s := r.stanza()
	name := "?"
	if r.Forwarded.Message != nil {
		name = "message"
	} else if r.Forwarded.Presence != nil {
		name = "presence"
	}
	line += " <" + name
	for _, part := range []string{s.ID, s.Type, s.Show} {
		if part != "" {
			line += " " + part
		}
	}
	return line + ">"
}
