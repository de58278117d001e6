package component

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"mellium.im/xmpp"
	"mellium.im/xmpp/component"
	"mellium.im/xmpp/ping"
	"mellium.im/xmpp/stream"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// watchdogID begins the ids of the watchdog's pings.
const watchdogID = "watchdog-"

// endGrace is how long the server may take to answer our </stream:stream>.
const endGrace = 2 * time.Second

// attachment is one connection from its handshake to its end.
//
// The goroutine that serves it reads the socket, hands messages and presences to
// the handler and everything else to mellium's session; a second one writes.
type attachment struct {
	link    *Link
	raw     net.Conn
	in      *watchedReader
	out     *outbound
	conn    *conn
	session *xmpp.Session
	reader  *stanza.Reader
	env     stanza.Envelope
	iqs     *stanza.Decoder
	iqHead  stanza.Envelope // only the addresses, type and id of what iqs has read
	pings   int

	barriers map[jid.JID]*barrier // under way, by host
	fresh    chan probe           // users heard for the first time
	said     *stream.Error        // the server's own word about the end
}

func (l *Link) newAttachment(raw net.Conn) *attachment {
	a := &attachment{
		link: l, raw: raw, out: newOutbound(raw, l.cfg.PingTimeout),
		barriers: make(map[jid.JID]*barrier), fresh: make(chan probe, freshQueue),
	}
	a.in = &watchedReader{conn: raw, interval: l.cfg.PingInterval, timeout: l.cfg.PingTimeout, ping: a.ping}
	a.conn = newConn(raw, a.in, a.out)
	return a
}

// handshake does XEP-0114 section 3.
func (a *attachment) handshake(ctx context.Context) error {
	l := a.link
	a.raw.SetReadDeadline(time.Now().Add(l.cfg.HandshakeTimeout))
	// The context is not given to mellium: it would interrupt the connection by
	// moving deadlines, which can leave half an element written.
	stop := context.AfterFunc(ctx, func() { a.raw.Close() })
	session, err := component.NewSession(context.Background(), l.address, []byte(l.cfg.Secret.Reveal()), a.conn)
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return explainHandshake(l.cfg.Address, l.cfg.Name, l.cfg.HandshakeTimeout, a.in.heard, err)
	}
	limits := stanza.Limits{Size: int(l.cfg.MaxStanzaSize), Depth: l.cfg.MaxDepth}
	a.session = session
	a.in.watching, a.in.heard = true, nil
	a.reader = stanza.NewReader(a.conn.in, limits)
	a.iqs = stanza.NewDecoder(limits)
	a.conn.feed(a.next)
	return nil
}

// serve takes what the server sends until the stream ends, or until ctx ends, and
// then orderly: what the server sends before it ends its own stream is still taken.
// The connection is closed and all goroutines are gone when it returns.
func (a *attachment) serve(ctx context.Context) error {
	var others sync.WaitGroup
	done := make(chan struct{})
	sources := a.link.sources
	sources.attached(a.out)
	round := a.link.subscribers.round(func(host jid.JID) bool {
		return a.link.judge.Authority(host, trust.Presence) == trust.Direct
	})
	others.Go(func() {
		defer a.recover()
		a.probe(round, done)
	})
	others.Go(func() {
		defer a.recover()
		a.out.run(done)
	})
	others.Go(func() {
		defer a.recover()
		sources.run(done)
	})
	others.Go(func() {
		defer a.recover()
		select {
		case <-ctx.Done():
			a.end()
		case <-done:
		}
	})
	err := a.serveSession()
	close(done)
	a.raw.Close()
	sources.detached()
	others.Wait()
	return explainEnd(a.link.cfg.Address, a.link.cfg.PingTimeout, a.cause(err))
}

// cause returns what ended the stream, given what the session says: the server's
// own word, which the session forgets if it cannot repeat it to a server that has
// closed the connection, else why writing failed, which closes the connection under the reader,
// else why reading did.
func (a *attachment) cause(err error) error {
	read, written := a.conn.cause, a.out.cause()
	switch {
	case errors.Is(err, errPanicked):
	case a.said != nil:
		err = *a.said
	case errors.As(err, new(stream.Error)):
	case written != nil && (read == nil || closedHere(read)):
		err = written
	case err != nil && read != nil:
		err = read
	}
	return err
}

func (a *attachment) serveSession() (err error) {
	defer func() {
		if r := recover(); r != nil {
			a.reportPanic(r)
			err = errPanicked
		}
	}()
	a.link.attached()
	return a.session.Serve(nil) // what reaches the session needs no handler
}

// end ends our half of the stream and gives the server a moment to end its own.
func (a *attachment) end() {
	by := time.Now().Add(endGrace)
	a.in.endBy(by)
	a.out.endBy(by)
	a.session.Close()
}

// recover, deferred at a goroutine's root, ends the stream instead of the process.
func (a *attachment) recover() {
	if r := recover(); r != nil {
		a.reportPanic(r)
		a.raw.Close()
	}
}

func (a *attachment) reportPanic(r any) {
	a.link.metrics.panics.Inc()
	a.link.log.Error("component: panic, the link will be set up again", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
}

// next frames what comes, deals with it, and returns the first element that is the
// session's: a stream error or the end of the stream. Only the server itself can
// write those. Whatever others write stays away from the session, which takes an
// element of the stream's namespace for the server's own at any depth.
func (a *attachment) next() ([]byte, error) {
	for {
		frame, err := a.reader.Next(&a.env)
		if err != nil {
			var refused *stanza.StanzaError
			if errors.As(err, &refused) {
				a.damaged(frame, refused.Defect.String())
				continue
			}
			// The session will say goodbye, perhaps to nobody.
			a.out.endBy(time.Now().Add(endGrace))
			return nil, err
		}
		switch {
		case frame.Fault != stanza.NoFault:
			a.damaged(frame, frame.Fault.String())
		case frame.Kind == stanza.EndFrame || bytes.HasPrefix(frame.Bytes, []byte("<stream:")):
			var said stream.Error
			if xml.Unmarshal(frame.Bytes, &said) == nil && said.Err != "" {
				a.said = &said
			}
			return frame.Bytes, nil
		case frame.Kind == stanza.OtherFrame:
			a.other(frame.Bytes)
		default:
			a.stanza()
		}
	}
}

// stanza takes the message or presence that was read.
func (a *attachment) stanza() {
	if a.env.Feed != nil {
		a.link.sources.take(&a.env, a.link.now())
		return
	}
	fact := a.link.judge.Stanza(&a.env, a.link.now())
	if fact != nil {
		a.link.handler(fact)
	}
	a.observe(fact)
}

// other takes an element that is no message or presence: requests are answered,
// replies go to who waits for them.
func (a *attachment) other(frame []byte) {
	if startsIQ(frame) && isDefect(a.iqs.Decode(frame, &a.iqHead), stanza.NotStanza) {
		if head := &a.iqHead.Outer; head.Type == "result" || head.Type == "error" {
			kind := "reply_unasked"
			if a.replied(frame, head) {
				kind = "reply"
			}
			a.link.metrics.iqs.WithLabelValues(kind).Inc()
			return
		}
	}
	q, err := readElement(frame)
	switch {
	case err != nil:
		a.bad("malformed iq", stanza.OtherFrame)
	case !q.isIQ() || q.isReply():
		a.bad("unknown element", stanza.OtherFrame)
	default:
		a.link.responder.handle(q, frame, a.out)
	}
}

// damaged takes a frame that is refused; of a message or presence, what could be read
// is in the envelope.
func (a *attachment) damaged(frame stanza.Frame, reason string) {
	a.bad(reason, frame.Kind)
	if frame.Kind == stanza.MessageFrame || frame.Kind == stanza.PresenceFrame {
		a.link.sources.damaged(&a.env, frame.Bytes, reason, a.link.now())
	}
}

// bad counts what cannot be read. Its content is never logged.
func (a *attachment) bad(reason string, kind stanza.FrameKind) {
	a.link.metrics.bad.WithLabelValues(reason).Inc()
	a.link.warnings.log("component: skipped a stanza that cannot be read",
		slog.String("reason", reason), slog.String("element", kind.String()))
}

// ping asks the server for a sign of life: a space for whoever only keeps the
// connection open, and a ping (XEP-0199) for an answer. Any byte of the server is
// life, so the answer is not looked at, and nobody can forge anything with one.
func (a *attachment) ping() {
	a.pings++
	q := " <iq type='get' id='" + watchdogID + strconv.Itoa(a.pings) + "' from='" + escape(a.link.cfg.Name) + "' to='" + escape(a.link.pingTo) + "'><ping xmlns='" + ping.NS + "'/></iq>"
	if a.out.enqueue([]byte(q)) {
		a.link.metrics.iqs.WithLabelValues("ping_sent").Inc()
	}
}
