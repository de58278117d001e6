//go:build linux

package ejabberd_test

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/internal/harness"
)

// feedNS is the namespace of the protocol.
const feedNS = "urn:eventpusher:feed:1"

// wrapper is a stanza of the component's stream.
type wrapper struct {
	XMLName   xml.Name
	From      string `xml:"from,attr"`
	To        string `xml:"to,attr"`
	Type      string `xml:"type,attr"`
	ID        string `xml:"id,attr"`
	Stamp     string `xml:"stamp,attr"`
	Hello     *hello `xml:"urn:eventpusher:feed:1 hello"`
	Event     *event `xml:"urn:eventpusher:feed:1 event"`
	Lost      *lost  `xml:"urn:eventpusher:feed:1 lost"`
	Forwarded *struct {
		Stanza []byte `xml:",innerxml"`
	} `xml:"urn:xmpp:forward:0 forwarded"`
}

type hello struct {
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

	From string // of the message
}

type event struct {
	Source string  `xml:"source,attr"`
	Epoch  string  `xml:"epoch,attr"`
	Seq    int     `xml:"seq,attr"`
	Kind   string  `xml:"kind,attr"`
	User   string  `xml:"user,attr"`
	T      float64 `xml:"t,attr"`

	To      string `xml:"to,attr"`
	Reached string `xml:"reached,attr"`
	Contact string `xml:"contact,attr"`
	Room    string `xml:"room,attr"`
	Nick    string `xml:"nick,attr"`
	Members string `xml:"members,attr"`
	Reason  string `xml:"reason,attr"`
	Unacked string `xml:"unacked,attr"`
	ID      string `xml:"id,attr"`
	Count   string `xml:"count,attr"`
	Token   string `xml:"token,attr"`

	Host   string // from of the message
	Stanza string // what is forwarded, as it came
}

type lost struct {
	Source string `xml:"source,attr"`
	Epoch  string `xml:"epoch,attr"`
	From   int    `xml:"from,attr"`
	To     int    `xml:"to,attr"`
	Token  string `xml:"token,attr"`

	Host string // from of the message
}

// component is the component's half of the protocol. It outlives connections,
// and keeps what a real one has on disk. Safe for concurrent use.
type component struct {
	t    testing.TB
	s    *harness.XMPPServer
	name string

	mu      sync.Mutex
	arrived chan struct{}
	conn    net.Conn
	ended   chan struct{}

	ackEvery int // events
	// manual leaves hellos and events unanswered; the test answers them.
	manual bool
	epoch  string
	last   int // position
	acked  int
	first  int // of the epoch's events here
	events []event
	losses []lost
	hellos []hello
	faults []string // what broke the protocol
	repeat int      // events that came twice
	inWire int      // events since the last acknowledgement
	widest int      // most of them
	others []wrapper
	mark   int // where the step began
	// discard keeps no events, for benchmarks.
	discard bool
	// old is a component from before tokens.
	old    bool
	token  string // of the last resume
	tokens int    // resumes with one
}

// attach connects a component, as a process that starts without a disk.
func attach(t testing.TB, s *harness.XMPPServer) *component {
	t.Helper()
	c := &component{t: t, s: s, name: s.Component, arrived: make(chan struct{}), ackEvery: 10}
	c.connect()
	t.Cleanup(c.disconnect)
	return c
}

// connect dials. A server that is being started refuses at first.
func (c *component) connect() {
	c.t.Helper()
	conn, err := net.DialTimeout("tcp", c.s.ComponentAddr(c.name), harness.WaitLimit)
	if err != nil {
		c.t.Fatal(err)
	}
	fmt.Fprintf(conn, "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='%s'>", c.name)
	d := xml.NewDecoder(conn)
	root, err := nextStart(d)
	if err != nil {
		c.t.Fatal(err)
	}
	id := ""
	for _, a := range root.Attr {
		if a.Name.Local == "id" {
			id = a.Value
		}
	}
	digest := sha1.Sum([]byte(id + c.s.Secret))
	fmt.Fprintf(conn, "<handshake>%s</handshake>", hex.EncodeToString(digest[:]))
	answer, err := nextStart(d)
	if err != nil || answer.Name.Local != "handshake" {
		c.t.Fatalf("handshake: %v %v", answer.Name, err)
	}
	d.Skip()
	c.mu.Lock()
	c.conn, c.ended = conn, make(chan struct{})
	c.inWire = 0
	c.mu.Unlock()
	go c.read(d, c.ended)
}

func nextStart(d *xml.Decoder) (xml.StartElement, error) {
	for {
		token, err := d.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := token.(xml.StartElement); ok {
			return start, nil
		}
	}
}

// disconnect closes the socket as a killed process does.
func (c *component) disconnect() {
	c.mu.Lock()
	conn, ended := c.conn, c.ended
	c.mu.Unlock()
	conn.Close()
	<-ended
}

func (c *component) read(d *xml.Decoder, ended chan struct{}) {
	defer close(ended)
	for {
		start, err := nextStart(d)
		if err != nil {
			return
		}
		var w wrapper
		if err := d.DecodeElement(&w, &start); err != nil {
			return
		}
		c.mu.Lock()
		reply := c.take(w)
		close(c.arrived)
		c.arrived = make(chan struct{})
		conn := c.conn
		c.mu.Unlock()
		if reply != "" {
			io.WriteString(conn, reply)
		}
	}
}

// take follows the protocol and returns what is to be sent. c.mu is held.
func (c *component) take(w wrapper) string {
	fault := func(format string, args ...any) {
		c.faults = append(c.faults, fmt.Sprintf(format, args...))
	}
	switch {
	case w.Hello != nil:
		h := *w.Hello
		h.From = w.From
		c.hellos = append(c.hellos, h)
		if w.Type != "" || w.ID != "" || w.To != c.name {
			fault("hello in type=%q id=%q to=%q", w.Type, w.ID, w.To)
		}
		if c.manual {
			return ""
		}
		return c.resumeLocked()
	case w.Event != nil:
		e := *w.Event
		e.Host = w.From
		if e.Token != c.token {
			fault("token %q, want %q: %+v", e.Token, c.token, e)
		}
		e.Token = ""
		if w.Forwarded != nil {
			e.Stanza = string(w.Forwarded.Stanza)
		}
		if len(c.hellos) == 0 || e.Source != c.hellos[0].Source || e.Epoch != c.hellos[len(c.hellos)-1].Epoch {
			fault("event of %s %s", e.Source, e.Epoch)
		}
		c.inWire++
		c.widest = max(c.widest, c.inWire)
		return c.advance(e.Epoch, e.Seq, e.Seq, func() {
			if !c.discard {
				c.events = append(c.events, e)
			}
		}, fault)
	case w.Lost != nil:
		l := *w.Lost
		l.Host = w.From
		if l.Token != c.token {
			fault("token %q, want %q: %+v", l.Token, c.token, l)
		}
		l.Token = ""
		return c.advance(l.Epoch, l.From, l.To, func() { c.losses = append(c.losses, l) }, fault)
	default:
		if !c.discard {
			c.others = append(c.others, w)
		}
		return ""
	}
}

// advance takes what stands at last+1 and nothing else.
func (c *component) advance(epoch string, from, to int, keep func(), fault func(string, ...any)) string {
	if epoch != c.epoch {
		// A new epoch begins with whatever the source has kept of it.
		c.epoch, c.last, c.acked, c.first = epoch, from-1, from-1, from
	}
	switch {
	case from <= c.last:
		c.repeat++
		return ""
	case from > c.last+1:
		fault("%d follows %d", from, c.last)
		return ""
	}
	c.last = to
	keep()
	if c.manual || to == from && c.inWire < c.ackEvery {
		return ""
	}
	return c.ackLocked()
}

func (c *component) resumeLocked() string {
	c.acked, c.inWire = c.last, 0
	attributes := fmt.Sprintf("source='%s'", c.hellos[len(c.hellos)-1].Source)
	if c.epoch != "" {
		attributes += fmt.Sprintf(" epoch='%s' seq='%d'", c.epoch, c.last)
	}
	if c.token = ""; !c.old {
		c.tokens++
		c.token = fmt.Sprintf("token %d & <more>", c.tokens)
		attributes += fmt.Sprintf(" token='token %d &amp; &lt;more>'", c.tokens)
	}
	return c.control("resume", "%s", attributes)
}

func (c *component) ackLocked() string {
	c.acked, c.inWire = c.last, 0
	return c.control("ack", "source='%s' epoch='%s' seq='%d'", c.hellos[0].Source, c.epoch, c.last)
}

// control returns an element for the host that said hello last. c.mu is held.
func (c *component) control(verb, format string, args ...any) string {
	return fmt.Sprintf("<message from='%s' to='%s'><%s xmlns='%s' %s/></message>",
		c.name, c.hellos[len(c.hellos)-1].From, verb, feedNS, fmt.Sprintf(format, args...))
}

// send sends raw XML.
func (c *component) send(text string) {
	c.t.Helper()
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if _, err := io.WriteString(conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// say sends what f makes of the state.
func (c *component) say(f func() string) {
	c.t.Helper()
	text := ""
	c.locked(func() { text = f() })
	c.send(text)
}

// since returns the events from the n-th on.
func (c *component) since(n int) (all []event) {
	c.locked(func() { all = slices.Clone(c.events[n:]) })
	return all
}

// until waits until the state is as wanted.
func (c *component) until(what string, done func() bool) {
	c.t.Helper()
	deadline := time.After(harness.WaitLimit)
	for {
		var arrived chan struct{}
		ok := false
		c.locked(func() { arrived, ok = c.arrived, done() })
		if ok {
			return
		}
		select {
		case <-arrived:
		case <-deadline:
			c.mu.Lock()
			defer c.mu.Unlock()
			c.t.Fatalf("waited in vain for %s; at %s %d, %d events, losses %v, faults %v, last hello %+v\n%s",
				what, c.epoch, c.last, len(c.events), c.losses, c.faults, c.hellos, c.s.Log())
		}
	}
}

// locked runs f while nothing arrives.
func (c *component) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// snapshot asks for all sessions and returns them. Whatever was handed to the
// source before has then arrived. A snapshot whose beginning the source has given up, as
// there was too much for its ring, is asked for again.
func (c *component) snapshot(id string) []event {
	c.t.Helper()
	for {
		if sessions, whole := c.snapshotOnce(id); whole {
			return sessions
		}
		id += "-again"
	}
}

func (c *component) snapshotOnce(id string) (sessions []event, whole bool) {
	c.t.Helper()
	var source string
	c.until("a hello", func() bool { return len(c.hellos) > 0 })
	c.locked(func() { source = c.hellos[0].Source })
	c.say(func() string { return c.control("snapshot", "source='%s' id='%s'", source, id) })
	is := func(kind string) func(e event) bool {
		return func(e event) bool { return e.Kind == kind && e.ID == id }
	}
	c.until("the end of snapshot "+id, func() bool {
		end := slices.IndexFunc(c.events, is("snapshot-end"))
		if end < 0 {
			return false
		}
		start := slices.IndexFunc(c.events, is("snapshot-start"))
		if whole = start >= 0; !whole {
			return true
		}
		for _, e := range c.events[start:end] {
			if e.Kind == "snapshot" {
				sessions = append(sessions, e)
			}
		}
		if c.events[end].Count != fmt.Sprint(len(sessions)) {
			c.faults = append(c.faults, fmt.Sprintf("count %s of %d sessions", c.events[end].Count, len(sessions)))
		}
		return true
	})
	return sessions, whole
}

// step runs f and returns the events that it made, but for snapshots.
func (c *component) step(f func()) (made []event) {
	c.t.Helper()
	c.snapshot(fmt.Sprintf("before-%d", c.count()))
	from := c.count()
	c.locked(func() { c.mark = from })
	f()
	c.snapshot(fmt.Sprintf("after-%d", from))
	c.locked(func() {
		for _, e := range c.events[from:] {
			if !strings.HasPrefix(e.Kind, "snapshot") {
				made = append(made, e)
			}
		}
	})
	return made
}

func (c *component) count() (n int) {
	c.locked(func() { n = len(c.events) })
	return n
}

// await waits for the n-th event of that kind in this step whose user begins so.
func (c *component) await(kind, user string, n int) {
	c.t.Helper()
	c.until(fmt.Sprintf("%d %s of %s", n, kind, user), func() bool {
		got := 0
		for _, e := range c.events[c.mark:] {
			if e.Kind == kind && strings.HasPrefix(e.User, user) {
				got++
			}
		}
		return got >= n
	})
}

// sound fails the test if the protocol was broken.
func (c *component) sound() {
	c.t.Helper()
	c.locked(func() {
		if len(c.faults) > 0 {
			c.t.Errorf("faults: %q", c.faults)
		}
	})
}

// line is an event in short: kind, user, the attributes that are there, and of
// the stanza its type, to and body.
func (e event) line() string {
	parts := []string{e.Kind, e.User}
	for _, a := range []struct{ name, value string }{
		{"to", e.To}, {"reached", e.Reached}, {"room", e.Room}, {"nick", e.Nick}, {"reason", e.Reason}, {"unacked", e.Unacked},
	} {
		if a.value != "" {
			parts = append(parts, a.name+"="+a.value)
		}
	}
	if e.Stanza != "" {
		s := e.decode()
		text := s.Body
		if s.XMLName.Local == "presence" {
			text = strings.TrimSpace(s.Type + " " + s.Show)
		}
		parts = append(parts, fmt.Sprintf("[%s %s]", s.XMLName.Local, text))
	}
	return strings.Join(parts, " ")
}

type stanza struct {
	XMLName xml.Name
	From    string `xml:"from,attr"`
	To      string `xml:"to,attr"`
	Type    string `xml:"type,attr"`
	ID      string `xml:"id,attr"`
	Body    string `xml:"jabber:client body"`
	Show    string `xml:"jabber:client show"`
}

func (e event) decode() (s stanza) {
	if err := xml.Unmarshal([]byte(e.Stanza), &s); err != nil {
		s.Body = err.Error()
	}
	return s
}

func lines(events []event) []string {
	all := make([]string, 0, len(events))
	for _, e := range events {
		all = append(all, e.line())
	}
	return all
}
