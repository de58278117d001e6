package component

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/component/eventfeed"
	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/xmppserver"
)

// keeper is who keeps what the feed brings; the test decides what is kept and when.
type keeper struct {
	Discard
	t    testing.TB
	link *Link
	at   map[string]eventfeed.Position // what is kept, by source; guarded by mu
	// complete: a process before this one has reported all sessions.
	complete bool

	mu      sync.Mutex
	said    []string // what the link did, in order
	grew    chan struct{}
	pending []eventfeed.Position
	auto    error // what becomes of things at once, unless hold is set
	hold    bool
}

func newKeeper(t testing.TB) *keeper {
	return &keeper{t: t, at: make(map[string]eventfeed.Position), grew: make(chan struct{}, 1)}
}

// Take implements Sink.
func (k *keeper) Take(f *trust.Fact, at eventfeed.Position) bool {
	if at.Source == "" {
		k.say("fact " + f.Feed.String() + " " + f.Body)
		return true
	}
	what := fmt.Sprintf("position %s %s %d", at.Source, at.Epoch, at.Seq)
	if f != nil {
		what = fmt.Sprintf("fed %s %s %d: %d %s %s", at.Source, at.Epoch, at.Seq, f.Report.Kind, f.From, f.Body)
	}
	if f != nil && f.Body == "panic" {
		panic("the body is " + f.Body)
	}
	return k.take(what, at)
}

// Bury implements Sink.
// atByte is where in a stanza its defect is.
var atByte = regexp.MustCompile(`at byte [0-9]+ of [0-9]+$`)

func (k *keeper) Bury(u *eventfeed.Undecodable) bool {
	if u.At.Source == "" {
		k.say(fmt.Sprintf("undecodable %s %s>%s: %s, %d bytes", u.Element, u.From, u.To, u.Reason, len(u.Bytes)))
		return true
	}
	return k.take(fmt.Sprintf("undecodable %s %s %d %s: %s", u.At.Source, u.At.Epoch, u.At.Seq, u.User, atByte.ReplaceAllString(u.Reason, "at byte N of N")), u.At)
}

// Positions implements Sink.
func (k *keeper) Positions() (list []eventfeed.Position) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, at := range k.at {
		at.Complete = k.complete
		list = append(list, at)
	}
	return list
}

// Resumed implements Sink.
func (k *keeper) Resumed(source string, c eventfeed.Continuity) {
	k.say(fmt.Sprintf("resumed %s %s", source, c))
}

func (k *keeper) say(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note(what)
}

func (k *keeper) note(what string) {
	k.said = append(k.said, what)
	select {
	case k.grew <- struct{}{}:
	default:
	}
}

func (k *keeper) take(what string, at eventfeed.Position) bool {
	k.mu.Lock()
	hold, err := k.hold, k.auto
	if hold {
		k.pending = append(k.pending, at)
	} else if err == nil {
		k.at[at.Source] = at
	}
	k.note(what)
	k.mu.Unlock()
	if !hold && err == nil {
		k.link.Kept([]eventfeed.Position{at})
	}
	return hold || err == nil
}

// set says what becomes of what comes: held, or refused with err, or kept.
func (k *keeper) set(hold bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hold, k.auto = hold, err
}

// commit keeps the first n things that are held.
func (k *keeper) commit(n int) {
	k.t.Helper()
	k.mu.Lock()
	if len(k.pending) < n {
		k.mu.Unlock()
		k.t.Fatalf("%d are held, not %d", len(k.pending), n)
	}
	list := k.pending[:n]
	k.pending = k.pending[n:]
	for _, at := range list {
		k.at[at.Source] = at
	}
	k.mu.Unlock()
	k.link.Kept(list)
}

// refuse gives all things up that are held.
func (k *keeper) refuse() {
	k.t.Helper()
	k.mu.Lock()
	list := k.pending
	k.pending = nil
	k.mu.Unlock()
	for _, at := range list[len(list)-1:] {
		k.link.Refused(at.Source)
	}
}

// want waits until the link has done exactly this since the last call.
func (k *keeper) want(want ...string) {
	k.t.Helper()
	deadline := time.After(time.Minute) // only against a test that hangs
	for {
		k.mu.Lock()
		n := len(k.said)
		if n >= len(want) {
			got := k.said
			k.said = nil
			k.mu.Unlock()
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				k.t.Fatalf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
			return
		}
		k.mu.Unlock()
		select {
		case <-k.grew:
		case <-deadline:
			k.mu.Lock()
			k.t.Fatalf("nothing more happens; got\n  %s\nwant\n  %s", strings.Join(k.said, "\n  "), strings.Join(want, "\n  "))
		}
	}
}

// fedLink is a Link with its keeper, attached to a server of the test.
type fedLink struct {
	*watched
	*keeper
	server *xmppserver.Server
}

func newFedLink(t testing.TB, k *keeper, change func(*config.Component)) *fedLink {
	t.Helper()
	server := startServer(t, serverOptions())
	cfg := testConfig(server.Addr())
	cfg.Forwarders = []string{testHost, "conference.example.org"}
	cfg.MUCHosts = []string{"conference.example.org"}
	cfg.ReconnectMin = time.Millisecond
	if change != nil {
		change(&cfg)
	}
	w := &watched{t: t, registry: prometheus.NewRegistry(), stopped: make(chan error, 1)}
	link, err := New(cfg, []string{testHost}, Options{Sink: k, Metrics: NewMetrics(w.registry), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	k.link = link
	w.Link = link
	w.ctx, w.stop = context.WithCancel(context.Background())
	return &fedLink{watched: w.start(), keeper: k, server: server}
}

// feedEvents returns the counter of one result.
func (l *fedLink) feedEvents(result string) float64 {
	l.watched.t.Helper()
	return l.counter("eventpusher_feed_events_total", result)
}

// awaitEvents waits until the counter of one result has come to n.
func (l *fedLink) awaitEvents(result string, n float64) {
	l.watched.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for l.feedEvents(result) < n {
		if time.Now().After(deadline) {
			l.watched.t.Fatalf("%v events are counted as %s, want %v", l.feedEvents(result), result, n)
		}
		time.Sleep(time.Millisecond)
	}
}

// feedModule is the module's half of the protocol, of one source on one connection.
type feedModule struct {
	t       testing.TB
	session *xmppserver.Session
	source  string
	epoch   string
	id      string // of the snapshot that was asked for last
}

func (l *fedLink) module(source, epoch string) *feedModule {
	l.watched.t.Helper()
	return &feedModule{t: l.watched.t, session: accept(l.watched.t, l.server), source: source, epoch: epoch}
}

func (m *feedModule) say(element string) {
	m.t.Helper()
	send(m.t, m.session, "<message from='"+testHost+"' to='"+testName+"'>"+element+"</message>")
}

func (m *feedModule) names() string {
	return " xmlns='" + eventfeed.NS + "' source='" + m.source + "' epoch='" + m.epoch + "'"
}

func (m *feedModule) hello(first, next int, more string) {
	m.t.Helper()
	m.say(fmt.Sprintf("<hello%s first='%d' next='%d' hosts='%s conference.example.org' server='Test 1' %s/>", m.names(), first, next, testHost, more))
}

// sent returns the event of a message.
func (m *feedModule) sent(seq int) string {
	return m.event(seq, "message-sent", "alice@example.org/r1") +
		fmt.Sprintf("<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='alice@example.org/r1' to='bob@example.org' type='chat'><body>m%d</body></message></forwarded>", seq)
}

func (m *feedModule) event(seq int, kind, user string) string {
	return fmt.Sprintf("<event%s seq='%d' kind='%s' user='%s' t='1732253277.123'/>", m.names(), seq, kind, user)
}

func (m *feedModule) send(from, to int) {
	m.t.Helper()
	for seq := from; seq <= to; seq++ {
		m.say(m.sent(seq))
	}
}

func (m *feedModule) lost(from, to int) {
	m.t.Helper()
	m.say(fmt.Sprintf("<lost%s from='%d' to='%d'/>", m.names(), from, to))
}

// endSnapshot ends the one that was asked for last.
func (m *feedModule) endSnapshot(seq int) {
	m.t.Helper()
	m.say(strings.Replace(m.event(seq, "snapshot-end", ""), "/>", " id='"+m.id+"' count='0'/>", 1))
}

// hears returns the next element of the feed that the component sends, as
// "resume source epoch seq"; ids of snapshots are left out.
func (m *feedModule) hears() string {
	m.t.Helper()
	s := receive(m.t, m.session)
	var e struct {
		XMLName xml.Name
		Source  string `xml:"source,attr"`
		Epoch   string `xml:"epoch,attr"`
		Seq     string `xml:"seq,attr"`
		ID      string `xml:"id,attr"`
	}
	if err := xml.Unmarshal([]byte(s.Inner), &e); err != nil || s.Name != "message" || s.From != testName || s.To != testHost || s.Type != "" {
		m.t.Fatalf("heard %+v: %v", s, err)
	}
	if e.XMLName.Space != eventfeed.NS || (e.ID != "") != (e.XMLName.Local == "snapshot") {
		m.t.Fatalf("heard %s", s.Inner)
	}
	if e.ID != "" {
		m.id = e.ID
	}
	return strings.TrimSpace(strings.Join([]string{e.XMLName.Local, e.Source, e.Epoch, e.Seq}, " "))
}

func (m *feedModule) wantHears(want ...string) {
	m.t.Helper()
	for _, w := range want {
		if got := m.hears(); got != w {
			m.t.Fatalf("heard %q, want %q", got, w)
		}
	}
}

// awaits waits until all of these were heard, in any order, with acknowledgements of less
// in between: how many there are depends on the clock.
func (m *feedModule) awaits(want ...string) {
	m.t.Helper()
	left := slices.Clone(want)
	for len(left) > 0 {
		heard := m.hears()
		if i := slices.Index(left, heard); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else if !strings.HasPrefix(heard, "ack ") {
			m.t.Fatalf("heard %q, want %q", heard, left)
		}
	}
}

// acked waits until everything up to seq is acknowledged.
func (m *feedModule) acked(seq int) {
	m.t.Helper()
	m.awaits(fmt.Sprintf("ack %s %s %d", m.source, m.epoch, seq))
}

// fed lists what the keeper is told of messages.
func fed(m *feedModule, from, to int) (list []string) {
	for seq := from; seq <= to; seq++ {
		list = append(list, fmt.Sprintf("fed %s %s %d: %d alice@example.org/r1 m%d", m.source, m.epoch, seq, stanza.MessageSent, seq))
	}
	return list
}

func place(source, epoch string, seq uint64) eventfeed.Position {
	return eventfeed.Position{Source: source, Epoch: epoch, Seq: seq}
}

func continuity(complete bool) string {
	if complete {
		return "complete"
	}
	return "missed"
}

var errFull = errors.New("outbox: full")
