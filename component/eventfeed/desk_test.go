package eventfeed

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testName = "events.example.org"
	testHost = "example.org"
	testRoom = "conference.example.org"
)

// disk is a Sink that keeps, holds or turns away what comes.
type disk struct {
	sources *Sources
	mu      sync.Mutex
	at      map[string]Position
	pending []Position
	hold    bool
	full    bool
	panics  bool
	said    []string
}

func (d *disk) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = append(d.said, fmt.Sprintf(format, args...))
}

func (d *disk) Take(f *trust.Fact, at Position) bool {
	if d.panics && f != nil {
		panic("of " + f.From)
	}
	if f == nil {
		d.note("position %s %s %d", at.Source, at.Epoch, at.Seq)
	} else {
		d.note("take %s %s %d", at.Source, at.Epoch, at.Seq)
	}
	return d.keep(at)
}

func (d *disk) Bury(u *Undecodable) bool {
	if u.At.Source == "" {
		d.note("bury %s", u.Reason)
		return true
	}
	d.note("bury %s %s %d: %s", u.At.Source, u.At.Epoch, u.At.Seq, u.Reason)
	return d.keep(u.At)
}

func (d *disk) keep(at Position) bool {
	d.mu.Lock()
	full, hold := d.full, d.hold
	switch {
	case full:
	case hold:
		d.pending = append(d.pending, at)
	default:
		d.at[at.Source] = at
	}
	d.mu.Unlock()
	if !full && !hold {
		d.sources.Kept([]Position{at})
	}
	return !full
}

// commit keeps the first n things that are held.
func (d *disk) commit(n int) {
	d.mu.Lock()
	list := d.pending[:n]
	d.pending = d.pending[n:]
	for _, at := range list {
		d.at[at.Source] = at
	}
	d.mu.Unlock()
	d.sources.Kept(list)
}

func (d *disk) Resumed(source string, c Continuity) { d.note("resumed %s %s", source, c) }

func (d *disk) Positions() (list []Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, at := range d.at {
		list = append(list, at)
	}
	return list
}

// desk is the component's half without a connection: elements go in as XML, what is
// said comes out of the writer's queue.
type desk struct {
	*Sources
	t       *testing.T
	disk    *disk
	decoder *stanza.Decoder
	queue   chan []byte
	log     bytes.Buffer
	reg     *prometheus.Registry
	token   string // of the last resume
	stop    func()
}

func newDesk(t *testing.T, queue int, change ...func(*Options)) *desk {
	d := &desk{t: t, disk: &disk{at: make(map[string]Position)}, decoder: stanza.NewDecoder(stanza.Limits{}), queue: make(chan []byte, queue), reg: prometheus.NewRegistry()}
	log := slog.New(slog.NewTextHandler(&d.log, nil))
	o := Options{
		Component: testName, Sink: d.disk, Metrics: NewMetrics(d.reg), Log: log,
		Judge: trust.New(trust.Options{Component: testName, Forwarders: []string{testHost, testRoom}, Hosts: []string{testHost}, MUCHosts: []string{testRoom}, Log: log}),
	}
	for _, c := range change {
		c(&o)
	}
	d.Sources = New(o)
	d.disk.sources = d.Sources
	d.connect()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); d.Run(done) }()
	d.stop = func() { close(done); <-ended }
	return d
}

func (d *desk) connect() {
	d.judge.Reconnected(time.Now())
	d.Attached(func(b []byte) bool {
		select {
		case d.queue <- b:
			return true
		default:
			return false
		}
	})
}

func (d *desk) in(format string, args ...any) {
	d.t.Helper()
	d.from(testHost, format, args...)
}

// from takes an element from a host.
func (d *desk) from(host, format string, args ...any) {
	d.t.Helper()
	var env stanza.Envelope
	xml := fmt.Sprintf("<message from='"+host+"' to='"+testName+"'>"+strings.ReplaceAll(format, " NS", " xmlns='"+NS+"'")+"</message>", args...)
	if err := d.decoder.Decode([]byte(xml), &env); err != nil {
		d.t.Fatal(err)
	}
	d.Take(&env, time.Now())
}

func (d *desk) greet(source string, first, next int) {
	d.t.Helper()
	d.in("<hello NS source='%s' epoch='e' first='%d' next='%d' hosts='"+testHost+"'/>", source, first, next)
}

// events brings those numbers of the source s.
func (d *desk) events(from, to int) {
	d.t.Helper()
	for seq := from; seq <= to; seq++ {
		d.in("<event NS source='s' epoch='e' seq='%d' kind='session-start' user='a@"+testHost+"/r'/>", seq)
	}
}

var (
	saidShape  = regexp.MustCompile(`to='([^']*)'><(\w+) xmlns='[^']*' source='([^']*)'(?: epoch='([^']*)' seq='(\d+)')?`)
	tokenShape = regexp.MustCompile(` token='([^']*)'`)
)

// out returns what was said so far as "element source epoch seq", to another host than
// testHost with that.
func (d *desk) out() (said []string) {
	d.t.Helper()
	synctest.Wait()
	for len(d.queue) > 0 {
		b := string(<-d.queue)
		m := saidShape.FindStringSubmatch(b)
		if token := tokenShape.FindStringSubmatch(b); token != nil {
			d.token = token[1]
		}
		text := strings.TrimSpace(strings.Join(m[2:], " "))
		if m[1] != testHost {
			text += " to " + m[1]
		}
		said = append(said, text)
	}
	return said
}

func (d *desk) want(want ...string) {
	d.t.Helper()
	if diff := cmp.Diff(want, d.out()); diff != "" {
		d.t.Fatalf("(-want +said):\n%s", diff)
	}
}

// took checks what was handed over since the last call.
func (d *desk) took(want ...string) {
	d.t.Helper()
	d.disk.mu.Lock()
	got := d.disk.said
	d.disk.said = nil
	d.disk.mu.Unlock()
	if diff := cmp.Diff(want, got); diff != "" {
		d.t.Fatalf("(-want +handed over):\n%s", diff)
	}
}

// count returns the value of a counter of the event-feed; result is a label, if any.
func (d *desk) count(name, result string) float64 {
	d.t.Helper()
	families, err := d.reg.Gather()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "eventpusher_feed_"+name+"_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if result == "" || m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	d.t.Fatalf("no metric %s %s", name, result)
	return 0
}

// decoded returns what can be read of a frame that is refused.
func decoded(d *desk, frame []byte) *stanza.Envelope {
	d.t.Helper()
	var env stanza.Envelope
	if d.decoder.Decode(frame, &env) == nil {
		d.t.Fatal("the frame can be read")
	}
	return &env
}
