package component

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"mellium.im/xmpp/component"
	"mellium.im/xmpp/ping"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// watchdogID begins the ids of the watchdog's pings, watchdogResource is where those to
// ourselves go.
const (
	watchdogID       = "watchdog-"
	watchdogResource = "watchdog"
)

// endGrace is how long the server may take to answer our </stream:stream>.
const endGrace = 2 * time.Second

// attachment is one connection from its handshake to its end. The goroutine that serves
// it reads the socket, a second one writes.
type attachment struct {
	link   *Link
	raw    net.Conn
	in     *watchedReader
	out    *outbound
	conn   *conn
	reader *stanza.Reader
	env    stanza.Envelope
	iqs    *stanza.Decoder
	pings  int

	barriers map[jid.JID]*barrier // under way, by host
	fresh    chan probe           // users heard for the first time
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
	_, err := component.NewSession(context.Background(), l.address, []byte(l.cfg.Secret.Reveal()), a.conn)
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return explainHandshake(l.cfg.Address, l.cfg.Name, l.cfg.HandshakeTimeout, a.in.heard, err)
	}
	limits := stanza.Limits{Size: int(l.cfg.MaxStanzaSize), Depth: l.cfg.MaxDepth}
	a.in.watching, a.in.heard = true, nil
	a.reader = stanza.NewReader(a.conn.in, limits)
	a.iqs = stanza.NewDecoder(limits)
	return nil
}

// serve takes what the server sends until the stream ends, or until ctx ends, and
// then orderly: what the server sends before it ends its own stream is still taken.
// The connection is closed and all goroutines are gone when it returns.
func (a *attachment) serve(ctx context.Context) error {
	var others sync.WaitGroup
	done := make(chan struct{})
	l := a.link
	l.sources.Attached(a.out.enqueue)
	round := l.subscribers.round(func(host jid.JID) bool {
		return l.judge.Authority(host, trust.Presence) == trust.Direct
	})
	for _, run := range []func(){
		func() { a.probe(round, done) },
		func() { a.out.run(done) },
		func() { l.sources.Run(done) },
		func() {
			select {
			case <-ctx.Done():
				a.end()
			case <-done:
			}
		},
	} {
		others.Go(func() {
			defer a.recover()
			run()
		})
	}
	err := a.read()
	if !errors.Is(err, errPanicked) {
		a.goodbye(err)
	}
	close(done)
	a.raw.Close()
	l.sources.Detached()
	others.Wait()
	if written := a.out.cause(); written != nil && (err == nil || closedHere(err)) {
		err = written // which has closed the connection under the reader
	}
	return explainEnd(l.cfg.Address, l.cfg.PingTimeout, err)
}

// The end of our half of a stream (RFC 6120 section 4.4), and what comes before it if the
// server's half cannot be read on (section 4.9.3.13).
const (
	streamEnd    = "</stream:stream>"
	notReadable  = "<stream:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
	errorElement = "<stream:error"
)

// end ends our half of the stream and gives the server a moment to end its own.
func (a *attachment) end() {
	by := time.Now().Add(endGrace)
	a.in.endBy(by)
	a.out.endWith(streamEnd, by)
}

// goodbye ends our half after the server has ended its own, or can be read no more.
func (a *attachment) goodbye(err error) {
	last := streamEnd
	if errors.As(err, new(*stanza.SyntaxError)) {
		last = notReadable + streamEnd
	}
	a.out.endWith(last, time.Now().Add(endGrace))
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

// ping asks the server for a sign of life: a space for a server that only keeps the
// connection open, and a ping (XEP-0199) for an answer. Any byte of the server is
// life, so the answer is not looked at, and nobody can forge anything with one.
//
// The second one goes to an address of ours, so that the server hands it back to us: some
// versions of ejabberd's mod_privilege drop each IQ of a component to an address without a
// resource, the first one too.
func (a *attachment) ping(second bool) {
	to := a.link.pingTo
	if second {
		to = a.link.cfg.Name + "/" + watchdogResource
	}
	a.pings++
	q := " <iq type='get' id='" + watchdogID + strconv.Itoa(a.pings) + "' from='" + stanza.Escape(a.link.cfg.Name) + "' to='" + stanza.Escape(to) + "'><ping xmlns='" + ping.NS + "'/></iq>"
	if a.out.enqueue([]byte(q)) {
		a.link.metrics.iqs.WithLabelValues("ping_sent").Inc()
	}
}
