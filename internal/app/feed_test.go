package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/component"
	"eventpusher/component/eventfeed"
	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/xmppserver"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
	"eventpusher/translator"
)

// childDir is the environment variable that makes the test's binary an instance of the
// program, on the outbox in that directory, until its standard input ends.
const childDir, childServer = "EVENTPUSHER_TEST_DIR", "EVENTPUSHER_TEST_SERVER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := live(dir, os.Getenv(childServer)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(worldDir); dir != "" {
		if err := runWorld(dir); err != nil && err != io.EOF {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const (
	feedHost      = "example.org"
	feedComponent = "events.example.org"
)

// printer is a backend that prints the bodies that it is given.
type printer struct{ backends.Backend }

func (printer) Name() string            { return "printer" }
func (printer) Limits() backends.Limits { return backends.Limits{Lanes: 4, Batch: 50} }
func (printer) Wants(e *event.Event) bool {
	return e.Kind == event.Chat && e.Direction == event.In
}
func (printer) Publish(_ context.Context, batch []event.Event) []error {
	var b strings.Builder
	for i := range batch {
		b.WriteString(batch[i].Body + "\n")
	}
	_, err := os.Stdout.WriteString(b.String())
	return slices.Repeat([]error{err}, len(batch))
}

// live is one life of the program, from the link to the backend.
func live(dir, address string) error {
	box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: dir})
	if err != nil {
		return err
	}
	f := &sink{translator: translator.New(translator.Options{Hosts: []string{feedHost}, Component: feedComponent}), box: box}
	push, err := pusher.New(pusher.Options{Backends: []backends.Backend{printer{}}, Outbox: box, Feeds: f})
	if err != nil {
		return err
	}
	f.pusher = push
	link, err := component.New(config.Component{
		Address: address, Name: feedComponent, Secret: "secret", Forwarders: []string{feedHost}, MaxDepth: 10,
		ReconnectMin: time.Millisecond, ReconnectMax: 10 * time.Millisecond,
	}, []string{feedHost}, component.Options{Sink: f})
	if err != nil {
		return err
	}
	f.link = link
	ctx, stop := context.WithCancel(context.Background())
	pushed, linked := make(chan error, 1), make(chan error, 1)
	go func() { pushed <- push.Run(context.WithoutCancel(ctx)) }()
	go func() { linked <- link.Run(ctx) }()
	io.Copy(io.Discard, os.Stdin)
	stop()
	err = <-linked
	push.Drain(context.Background())
	return errors.Join(err, <-pushed, box.Close())
}

// child runs live in a process of its own and collects what it prints.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	read  chan struct{} // closed when all that it has printed is read
}

func (w *world) live(address string) *child {
	w.t.Helper()
	c := &child{t: w.t, cmd: exec.Command(os.Args[0], "-test.run=^$"), read: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), childDir+"="+w.dir, childServer+"="+address)
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	c.stdin = stdin
	stdout, err2 := c.cmd.StdoutPipe()
	if err := errors.Join(err, err2, c.cmd.Start()); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(c.read)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			w.mu.Lock()
			w.got[lines.Text()] = true
			w.mu.Unlock()
		}
	}()
	return c
}

func (c *child) kill() {
	c.t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Error(err)
	}
	<-c.read
	c.cmd.Wait() // killed, it says
}

func (c *child) end() {
	c.t.Helper()
	c.stdin.Close()
	<-c.read
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("the program ended with %v", err)
	}
}

// world is what all lives share.
type world struct {
	t   *testing.T
	dir string

	mu  sync.Mutex
	got map[string]bool
}

// ring is the module's half: it keeps what is not acknowledged, and checks that it is
// told nothing that it could not have meant.
type ring struct {
	t      *testing.T
	server *xmppserver.Server

	mu       sync.Mutex
	acked    int
	finished int // the number after which nothing comes
}

// progress returns how much is acknowledged.
func (r *ring) progress() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acked
}

// serve plays the module on each connection until everything is acknowledged.
func (r *ring) serve(ctx context.Context) {
	for {
		session, err := r.server.Accept(ctx)
		if err != nil {
			return
		}
		if r.connection(ctx, session) {
			return
		}
	}
}

func (r *ring) connection(ctx context.Context, session *xmppserver.Session) (done bool) {
	say := func(element string) error {
		return session.Send("<message from='" + feedHost + "' to='" + feedComponent + "'>" + element + "</message>")
	}
	const names = " xmlns='urn:eventpusher:feed:1' source='s' epoch='e'"
	r.mu.Lock()
	hello := fmt.Sprintf("<hello%s first='%d' next='%d' hosts='%s'/>", names, r.acked+1, r.finished+1, feedHost)
	r.mu.Unlock()
	if say(hello) != nil {
		return false
	}
	sent := -1
	for {
		s, err := session.Receive(ctx)
		if err != nil {
			return false
		}
		if strings.Contains(s.Inner, "<snapshot") {
			continue
		}
		var seq int
		if _, rest, ok := strings.Cut(s.Inner, " seq='"); ok {
			fmt.Sscanf(rest, "%d", &seq)
		} else if _, rest, ok := strings.Cut(s.Inner, ` seq="`); ok {
			fmt.Sscanf(rest, "%d", &seq)
		}
		r.mu.Lock()
		r.acked = max(r.acked, seq)
		done = r.acked == r.finished
		if seq < r.acked || seq > r.finished || strings.Contains(s.Inner, "<ack") && seq > sent {
			r.t.Errorf("acknowledged to %d, sent to %d, and now told %s", r.acked, sent, s.Inner)
		}
		r.mu.Unlock()
		if strings.Contains(s.Inner, "<resume") {
			sent = seq
		}
		if done {
			return true
		}
		for limit := seq + 100; sent < min(limit, r.finished); {
			sent++
			inner := fmt.Sprintf("<message xmlns='jabber:client' from='a%d@%s/r' to='b@elsewhere.example' type='chat'><body>m%d</body></message>", sent%7, feedHost, sent)
			if sent%500 == 0 { // cannot be read
				inner = strings.Repeat("<x>", 20) + strings.Repeat("</x>", 20)
			}
			kind := "message-sent"
			if sent%10 == 3 { // makes nothing happen
				kind = "message-edited"
			}
			if say(fmt.Sprintf("<event%s seq='%d' kind='%s' user='a%d@%s/r' t='1732253277.123'/><forwarded xmlns='urn:xmpp:forward:0'>%s</forwarded>",
				names, sent, kind, sent%7, feedHost, inner)) != nil {
				return false
			}
		}
	}
}

// TestFeedLosesNothing kills the program again and again in the midst of a feed. Every
// event must come out, or be a dead letter, and what was acknowledged must be on disk.
func TestFeedLosesNothing(t *testing.T) {
	const events = 12_000
	server, err := xmppserver.New(xmppserver.Options{Component: feedComponent, Secret: "secret", Hosts: []string{feedHost}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	r := &ring{t: t, server: server, finished: events}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); r.serve(ctx) }()
	w := &world{t: t, dir: t.TempDir(), got: make(map[string]bool)}
	kills := 0
	for finished := false; !finished; kills++ {
		c := w.live(server.Addr())
		// It is killed when it has come some way, wherever that may be.
		until := r.progress() + events/20 + rand.IntN(events/10)
		for !finished && r.progress() < until {
			select {
			case <-done:
				finished = true
			case <-time.After(time.Millisecond):
			}
		}
		c.kill()
		if kept := position(t, w.dir); kept < r.progress() || kept > events {
			t.Fatalf("the disk has %d, and %d was acknowledged", kept, r.progress())
		}
	}
	if ctx.Err() != nil {
		t.Fatal("it takes too long")
	}
	var wantLetters, wanted []string
	for seq := 1; seq <= events; seq++ {
		switch {
		case seq%500 == 0:
			wantLetters = append(wantLetters, undecodableID(eventfeed.Position{Source: "s", Epoch: "e", Seq: uint64(seq)}))
		case seq%10 != 3:
			wanted = append(wanted, fmt.Sprint("m", seq))
		}
	}
	// The last life delivers what is left.
	c := w.live(server.Addr())
	missing := wanted
	for deadline := time.Now().Add(time.Minute); len(missing) > 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		w.mu.Lock()
		missing = slices.DeleteFunc(missing, func(body string) bool { return w.got[body] })
		w.mu.Unlock()
	}
	c.end()
	if len(missing) > 0 {
		t.Errorf("%d events are lost, among them %s", len(missing), missing[0])
	}
	if len(w.got) != events-events/500-events/10 {
		t.Errorf("%d different events came out", len(w.got))
	}
	slices.Sort(wantLetters)
	if diff := cmp.Diff(wantLetters, letterIDs(t, w.dir)); diff != "" {
		t.Errorf("dead letters: %s", diff)
	}
	if kills < 5 {
		t.Errorf("killed %d times, too few to show anything", kills)
	}
}

// letterIDs lists the events of the dead letters, each once.
func letterIDs(t *testing.T, dir string) (ids []string) {
	t.Helper()
	box, err := outbox.OpenLetters(dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	all, err := box.List(outbox.LetterFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Reason != outbox.ReasonUndecodable || d.Backend != "" || d.Event.Host != feedHost || !strings.HasPrefix(d.Err, "too deep: ") {
			t.Fatalf("dead letter %+v", d)
		}
		ids = append(ids, d.Event.ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// position returns how far the source has come by what is on disk.
func position(t *testing.T, dir string) int {
	t.Helper()
	box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, at := range box.Positions() {
		if at.Source == "s" {
			return int(at.Seq)
		}
	}
	return 0
}

// TestDirectOffline is stock ejabberd with a roster subscription: a dropped connection
// shows in the direct feed alone, while everything else comes by service_log.
func TestDirectOffline(t *testing.T) {
	feeds := trust.New(trust.Options{Component: feedComponent, Forwarders: []string{feedHost}, Hosts: []string{feedHost}, Feeds: (&config.Component{Feeds: []string{"service_log", "direct:offline"}}).Authority})
	tr := translator.New(translator.Options{Hosts: []string{feedHost}, Component: feedComponent})
	d := stanza.NewDecoder(stanza.Limits{})
	var got []string
	logged := func(inner string) string {
		return "<message from='" + feedHost + "' to='" + feedComponent + "'><forwarded xmlns='urn:xmpp:forward:0'>" + inner + "</forwarded></message>"
	}
	for _, xml := range []string{
		logged("<presence xmlns='jabber:client' from='al@example.org/a' to='al@example.org'/>"),
		"<presence from='al@example.org/a' to='events.example.org'/>", // what the subscription gives
		logged("<message xmlns='jabber:client' from='al@example.org/a' to='bo@elsewhere.example' type='chat'><body>hi</body></message>"),
		logged("<presence xmlns='jabber:client' from='al@example.org/b' to='al@example.org'/>"),
		logged("<presence xmlns='jabber:client' type='unavailable' from='al@example.org/b' to='al@example.org'/>"), // says goodbye
		"<presence type='unavailable' from='al@example.org/b' to='events.example.org'/>",
		"<presence type='unavailable' from='al@example.org/a' to='events.example.org'/>", // the connection drops
	} {
		var env stanza.Envelope
		if err := d.Decode([]byte(xml), &env); err != nil {
			t.Fatal(err)
		}
		if s := feeds.Stanza(&env, time.Now()); s != nil {
			for _, e := range tr.Translate(s, nil) {
				got = append(got, fmt.Sprintf("%s %s %s %s", e.Dialect, e.Type, e.From, e.Body))
			}
		}
	}
	want := []string{
		"service_log online al@example.org/a ", "service_log chat al@example.org/a hi", "service_log online al@example.org/b ",
		"direct offline al@example.org/b ", "direct offline al@example.org/a ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
