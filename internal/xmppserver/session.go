package xmppserver

import (
	"context"
	"encoding/xml"
	"net"
	"sync"
	"sync/atomic"
)

// receiveQueue is how many stanzas of the component wait for Receive; what comes
// beyond is dropped, so that an owner who never receives is no trouble.
const receiveQueue = 1024

// Stanza is one element that the component sent.
type Stanza struct {
	Name               string // local name: iq, message, presence
	From, To, ID, Type string
	Inner              string // the XML between its tags
}

// Session is one component that completed its handshake.
// Its methods are safe for concurrent use.
type Session struct {
	conn      net.Conn
	release   func() // gives the component's name free; see Server.release
	decoder   *xml.Decoder
	fault     Fault
	received  chan Stanza
	dropped   chan struct{} // closed by Drop
	done      chan struct{} // closed when the connection is
	drop      sync.Once
	keepalive atomic.Int64
	ended     atomic.Bool

	write sync.Mutex
}

func newSession(conn net.Conn, fault Fault) *Session {
	return &Session{
		conn: conn, fault: fault, decoder: xml.NewDecoder(conn),
		received: make(chan Stanza, receiveQueue), dropped: make(chan struct{}), done: make(chan struct{}),
	}
}

// Send writes XML to the component as it is, and blocks while the component does
// not read. What one call writes is never mixed with another's.
func (s *Session) Send(xml string) error { return s.Write([]byte(xml)) }

// Write is Send for bytes.
func (s *Session) Write(b []byte) error {
	s.write.Lock()
	defer s.write.Unlock()
	size := s.fault.Segment
	if size <= 0 {
		size = len(b)
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if _, err := s.conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Receive returns the next stanza of the component, apart from pings that the
// server answers itself. It returns ErrClosed when the connection has ended, or
// the context's error.
func (s *Session) Receive(ctx context.Context) (Stanza, error) {
	select {
	case stanza := <-s.received:
		return stanza, nil
	case <-ctx.Done():
		return Stanza{}, ctx.Err()
	case <-s.done:
	}
	// The last stanzas may have come together with the end.
	select {
	case stanza := <-s.received:
		return stanza, nil
	default:
		return Stanza{}, ErrClosed
	}
}

// Keepalives returns how many whitespace keepalives the component has sent.
func (s *Session) Keepalives() int { return int(s.keepalive.Load()) }

// Ended reports whether the component ended its stream with </stream:stream>, as
// an orderly stop does.
func (s *Session) Ended() bool { return s.ended.Load() }

// Done is closed when the connection has ended, whoever ended it.
func (s *Session) Done() <-chan struct{} { return s.done }

// Fail sends a stream error with this condition (RFC 6120 section 4.9.3), ends
// the stream and closes the connection.
func (s *Session) Fail(condition, text string) {
	s.fail(condition, text)
	s.Drop()
}

// Drop closes the connection without a word, as a server that dies does.
// The next connection finds the name free.
func (s *Session) Drop() {
	s.drop.Do(func() { close(s.dropped) })
	s.release()
	s.conn.Close()
}

// end closes what is left; it runs once, when the connection's goroutine ends.
func (s *Session) end() {
	s.conn.Close()
	close(s.done)
}

// read takes stanzas until the component ends its stream, which is answered, or
// the connection breaks.
func (s *Session) read(answer func(*Session, Stanza) bool) {
	for {
		token, err := s.decoder.Token()
		if err != nil {
			return
		}
		switch t := token.(type) {
		case xml.CharData:
			s.keepalive.Add(1)
		case xml.EndElement: // only that of the stream can come at this level
			s.ended.Store(true)
			s.Send(s.fault.Farewell + "</stream:stream>")
			return
		case xml.StartElement:
			stanza, err := s.decode(t)
			if err != nil {
				return
			}
			if answer(s, stanza) {
				continue
			}
			select {
			case s.received <- stanza:
			default:
			}
		}
	}
}

func (s *Session) decode(start xml.StartElement) (Stanza, error) {
	var inner struct {
		XML string `xml:",innerxml"`
	}
	if err := s.decoder.DecodeElement(&inner, &start); err != nil {
		return Stanza{}, err
	}
	return Stanza{
		Name: start.Name.Local,
		From: attribute(start, "from"), To: attribute(start, "to"),
		ID: attribute(start, "id"), Type: attribute(start, "type"),
		Inner: inner.XML,
	}, nil
}
