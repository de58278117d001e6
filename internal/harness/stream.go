//go:build linux

package harness

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// stream is one end of an XML stream over a socket. It reads everything in the
// background and keeps each element below the stream's root as the text that
// arrived.
type stream struct {
	t    testing.TB
	name string // for messages
	conn net.Conn

	// on, if set, takes each element in place of the collection; the start tag of
	// the peer's stream too, as an element of its own.
	on func(name, text string)

	write sync.Mutex

	mu      sync.Mutex
	got     []element
	root    string // the start tag of the peer's current stream
	err     error  // why reading ended
	handled uint32 // stanzas since stream management was enabled, XEP-0198 section 4
	sm      bool
	arrived chan struct{} // closed and replaced with every change
	ended   chan struct{} // closed when reading has ended
}

// element is one stanza, or another child of the stream's root.
type element struct {
	text string
	seen bool // some Wait has returned it
}

// openStream is the opening of a stream (RFC 6120 section 4.2, XEP-0114 section 3).
func openStream(namespace, to string) string {
	version := " version='1.0'"
	if namespace == "jabber:component:accept" {
		version = ""
	}
	return fmt.Sprintf("<?xml version='1.0'?><stream:stream xmlns='%s' xmlns:stream='http://etherx.jabber.org/streams' to='%s'%s>",
		namespace, to, version)
}

// newStream is a stream that nobody reads yet; one without a connection only
// collects.
func newStream(t testing.TB, name string, conn net.Conn) *stream {
	return &stream{t: t, name: name, conn: conn, arrived: make(chan struct{}), ended: make(chan struct{})}
}

// dialStream connects and starts reading. The connection ends with the test.
func dialStream(t testing.TB, name, addr string) *stream {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, WaitLimit)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	s := newStream(t, name, conn)
	go s.read()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what %s got last:\n%s", name, s.transcript())
		}
		s.conn.Close()
		<-s.ended
	})
	return s
}

// read cuts the socket's bytes into the children of the stream's root. After a
// successful authentication the peer opens a second stream on the same socket
// (RFC 6120 section 6.4.6), which is a second document with a declaration of
// its own: hence a new decoder, on what the old one has read too much.
func (s *stream) read() {
	defer close(s.ended)
	var ahead []byte
	for {
		rest, err := s.document(io.MultiReader(bytes.NewReader(ahead), s.conn))
		if err != nil {
			s.change(func() { s.err = err })
			return
		}
		ahead = rest
	}
}

// document reads one stream until its end or until <success/>; then it returns
// the bytes that follow.
func (s *stream) document(in io.Reader) (rest []byte, err error) {
	var raw bytes.Buffer // every byte from offset base on
	var base int64
	d := xml.NewDecoder(io.TeeReader(in, &raw))
	depth := 0
	start := int64(0) // of the element that is being read
	for {
		before := d.InputOffset()
		token, err := d.RawToken()
		if err != nil {
			return nil, err
		}
		switch tok := token.(type) {
		case xml.StartElement:
			if depth == 0 {
				tag := string(raw.Bytes()[before-base : d.InputOffset()-base])
				s.change(func() { s.root = tag })
				if s.on != nil {
					s.on(tok.Name.Local, tag+"</stream:stream>")
				}
			}
			if depth == 1 {
				raw.Next(int(before - base))
				base, start = before, before
			}
			depth++
		case xml.EndElement:
			depth--
			if depth == 0 {
				return nil, io.EOF
			}
			if depth == 1 {
				text := string(raw.Bytes()[start-base : d.InputOffset()-base])
				s.received(tok.Name.Local, text)
				if tok.Name.Local == "success" {
					return bytes.Clone(raw.Bytes()[d.InputOffset()-base:]), nil
				}
			}
		}
	}
}

// received keeps an element and, with stream management, answers requests for
// acknowledgement.
func (s *stream) received(name, text string) {
	if s.on != nil {
		s.on(name, text)
		return
	}
	answer := ""
	s.change(func() {
		s.got = append(s.got, element{text: text})
		switch name {
		case "message", "presence", "iq":
			s.handled++
		case "enabled":
			s.sm, s.handled = true, 0
		case "r":
			if s.sm {
				answer = fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", s.handled)
			}
		}
	})
	if answer != "" {
		s.send(answer) // a socket that is gone ends the reading by itself
	}
}

func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.arrived)
	s.arrived = make(chan struct{})
}

func (s *stream) send(text string) error {
	s.write.Lock()
	defer s.write.Unlock()
	s.conn.SetWriteDeadline(time.Now().Add(WaitLimit))
	_, err := io.WriteString(s.conn, text)
	return err
}

// Send writes raw XML.
func (s *stream) Send(text string) {
	s.t.Helper()
	if err := s.send(text); err != nil {
		s.t.Fatalf("%s: send: %v", s.name, err)
	}
}

// TrySend is Send for a stream that the server may have ended, and for other
// goroutines than the test's.
func (s *stream) TrySend(text string) error { return s.send(text) }

// Sendf is Send with fmt.Sprintf. It escapes nothing.
func (s *stream) Sendf(format string, args ...any) {
	s.t.Helper()
	s.Send(fmt.Sprintf(format, args...))
}

// Stanzas returns every element that has arrived, in order, as it arrived.
func (s *stream) Stanzas() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]string, 0, len(s.got))
	for _, e := range s.got {
		all = append(all, e.text)
	}
	return all
}

// Wait returns the first element that matches and that no earlier Wait has
// returned. It fails the test when the stream ends or WaitLimit passes before.
func (s *stream) Wait(what string, match func(string) bool) string {
	s.t.Helper()
	text, err := s.wait(match)
	if err != nil {
		s.t.Fatalf("%s: waiting for %s: %v\nwhat it got last:\n%s", s.name, what, err, s.transcript())
	}
	return text
}

// WaitFor is Wait for an element that contains all the parts.
func (s *stream) WaitFor(parts ...string) string {
	s.t.Helper()
	return s.Wait(fmt.Sprintf("%q", parts), Containing(parts...))
}

// Containing matches elements that contain all the parts, each as whole words: the id
// "g2" is not found in "g20AAA", with which ids that ejabberd makes begin. Servers differ
// in their quotes, so a part is best the value of an attribute or some text.
func Containing(parts ...string) func(string) bool {
	word := regexp.MustCompile(`^\b|\b$`) // of a part that begins or ends with a letter or digit
	all := make([]*regexp.Regexp, len(parts))
	for i, part := range parts {
		all[i] = regexp.MustCompile(word.ReplaceAllLiteralString(regexp.QuoteMeta(part), `\b`))
	}
	return func(text string) bool {
		return !slices.ContainsFunc(all, func(part *regexp.Regexp) bool { return !part.MatchString(text) })
	}
}

// WaitEnd returns when the peer has closed the connection.
func (s *stream) WaitEnd() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(WaitLimit):
		s.t.Fatalf("%s: still connected after %s", s.name, WaitLimit)
	}
}

func (s *stream) wait(match func(string) bool) (string, error) {
	deadline := time.After(WaitLimit)
	for {
		s.mu.Lock()
		arrived, err := s.arrived, s.err
		i := slices.IndexFunc(s.got, func(e element) bool { return !e.seen && match(e.text) })
		if i >= 0 {
			s.got[i].seen = true
			text := s.got[i].text
			s.mu.Unlock()
			return text, nil
		}
		s.mu.Unlock()
		if err != nil {
			return "", fmt.Errorf("the stream has ended: %w", err)
		}
		select {
		case <-arrived:
		case <-deadline:
			return "", fmt.Errorf("nothing within %s", WaitLimit)
		}
	}
}

// waitRoot waits for the start tag of the peer's stream and returns one of its
// attributes.
func (s *stream) waitRoot(attribute string) (string, error) {
	deadline := time.After(WaitLimit)
	for {
		s.mu.Lock()
		root, arrived, err := s.root, s.arrived, s.err
		s.mu.Unlock()
		if root != "" {
			return attributeOf(root+"</stream:stream>", attribute), nil
		}
		if err != nil {
			return "", err
		}
		select {
		case <-arrived:
		case <-deadline:
			return "", fmt.Errorf("no stream within %s", WaitLimit)
		}
	}
}

// attributeOf returns an attribute of an element's start tag, "" without it.
func attributeOf(text, name string) string {
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.RawToken()
		if err != nil {
			return ""
		}
		if start, ok := token.(xml.StartElement); ok {
			for _, a := range start.Attr {
				if a.Name.Local == name && a.Name.Space == "" {
					return a.Value
				}
			}
			return ""
		}
	}
}

// transcript returns the last elements, for messages.
func (s *stream) transcript() string {
	all := s.Stanzas()
	if len(all) > 20 {
		all = all[len(all)-20:]
	}
	return strings.Join(all, "\n")
}

// Drop resets the connection (RST), as when a device vanishes behind its router.
func (s *stream) Drop() {
	if tcp, ok := s.conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	s.conn.Close()
	<-s.ended
}

// Hangup closes the connection (FIN) without ending the stream.
func (s *stream) Hangup() {
	s.conn.Close()
	<-s.ended
}

// CloseStream ends the stream and waits until the server has ended its own.
func (s *stream) CloseStream() {
	s.t.Helper()
	s.Send("</stream:stream>")
	s.WaitEnd()
	s.conn.Close()
}
