package component

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
)

// desk is the feed's protocol without a connection: elements go in as XML, what is
// said comes out of the writer's queue.
type desk struct {
	*sources
	t       *testing.T
	keeper  *keeper
	decoder *stanza.Decoder
	stop    func()
}

func newDesk(t *testing.T, queue int) *desk {
	k := newKeeper(t)
	o := k.options()
	o.feedDefaults()
	o.Metrics, o.Log = NewMetrics(nil), slog.New(slog.DiscardHandler)
	feeds := trust.New(trust.Options{Component: testName, Forwarders: []string{testHost}, Hosts: []string{testHost}})
	d := &desk{sources: newSources(&o, feeds, testName), t: t, keeper: k, decoder: stanza.NewDecoder(stanza.Limits{})}
	d.attached(&outbound{queue: make(chan []byte, queue)})
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); d.run(done) }()
	d.stop = func() { close(done); <-ended }
	return d
}

func (d *desk) in(format string, args ...any) {
	d.t.Helper()
	var env stanza.Envelope
	xml := fmt.Sprintf("<message from='"+testHost+"' to='"+testName+"'>"+strings.ReplaceAll(format, " NS", " xmlns='"+nsFeed+"'")+"</message>", args...)
	if err := d.decoder.Decode([]byte(xml), &env); err != nil {
		d.t.Fatal(err)
	}
	d.take(&env, time.Now())
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

var saidShape = regexp.MustCompile(`<(\w+) xmlns='[^']*' source='([^']*)'(?: epoch='([^']*)' seq='(\d+)')?`)

// out returns what was said so far, as feedModule.hears does.
func (d *desk) out() (said []string) {
	d.t.Helper()
	synctest.Wait()
	for len(d.sources.out.queue) > 0 {
		m := saidShape.FindStringSubmatch(string(<-d.sources.out.queue))
		said = append(said, strings.TrimSpace(strings.Join(m[1:], " ")))
	}
	return said
}

func (d *desk) want(want ...string) {
	d.t.Helper()
	if diff := cmp.Diff(want, d.out()); diff != "" {
		d.t.Fatalf("(-want +said):\n%s", diff)
	}
}

func TestFeedAckTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		d.greet("s", 1, 1)
		d.want("resume s", "snapshot s")
		time.Sleep(time.Minute)
		d.want()
		d.events(1, 99)
		d.want()
		time.Sleep(ackDelay - time.Millisecond)
		d.want()
		time.Sleep(time.Millisecond)
		d.want("ack s e 99")
		d.events(100, 205)
		d.want("ack s e 199")
		time.Sleep(ackDelay)
		d.want("ack s e 205")
		time.Sleep(time.Hour)
		d.want()
	})
}

// TestFeedWritersQueueIsFull puts nothing off for good.
func TestFeedWritersQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1)
		defer d.stop()
		stuck := func() { d.sources.out.queue <- []byte("<stuck xmlns='' source='x'") }
		stuck()
		d.greet("s", 1, 1)
		d.events(1, 1) // a resume that is not out opens nothing
		time.Sleep(10 * time.Second)
		d.want("stuck x")
		time.Sleep(ackDelay)
		d.want("resume s")
		time.Sleep(ackDelay)
		d.want("snapshot s")
		stuck()
		d.events(1, 250)
		time.Sleep(10 * time.Second)
		d.want("stuck x")
		time.Sleep(ackDelay)
		d.want("ack s e 250")
		if n := len(d.keeper.said); n != 251 {
			t.Errorf("%d calls, want 250 events and one resumption", n)
		}
	})
}

func TestFeedGapTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		d.greet("s", 1, 1)
		d.want("resume s", "snapshot s")
		d.events(1, 1)
		d.events(3, 5)
		time.Sleep(ackDelay)
		d.want("ack s e 1") // not yet: the last resume was only now
		time.Sleep(askPause)
		d.want("resume s e 1")
		d.events(3, 500)
		time.Sleep(gapRetry - 2*ackDelay)
		d.want()
		time.Sleep(3 * ackDelay)
		d.want("resume s e 1") // once more, in case the first went astray
		d.events(2, 3)
		time.Sleep(gapRetry + askPause)
		d.want("ack s e 3")
		d.events(6, 6) // at once, if nothing was asked for lately
		d.want("resume s e 3")
		d.events(4, 4)
		time.Sleep(time.Hour)
		d.want("ack s e 4")
	})
}

// TestFeedFullOutbox asks at a bounded rate for what is refused again and again.
func TestFeedFullOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		d.greet("s", 1, 1)
		d.want("resume s", "snapshot s")
		d.events(1, 3)
		d.keeper.set(false, errFull)
		asked := 0
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
			d.events(4, 8)
			for _, said := range d.out() {
				if said == "resume s e 3" {
					asked++
				}
			}
		}
		if asked < 20 || asked > 30 {
			t.Errorf("asked %d times in a minute", asked)
		}
		d.keeper.set(false, nil)
		time.Sleep(askPause + ackDelay)
		d.out()
		d.events(4, 500)
		time.Sleep(ackDelay)
		if said := d.out(); said[len(said)-1] != "ack s e 500" {
			t.Errorf("said %v", said)
		}
	})
}

// TestFeedForgetsSources bounds what names that change again and again can cost.
func TestFeedForgetsSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 5*maxSources)
		defer d.stop()
		d.keeper.set(true, nil)
		d.greet("s", 1, 1)
		d.events(1, 1) // pending: not to be forgotten
		for n := range 2 * maxSources {
			time.Sleep(time.Second)
			d.greet(fmt.Sprintf("node%d", n), 1, 1)
		}
		list := d.status()
		if len(list) != maxSources || list[len(list)-1].Name != "s" {
			t.Errorf("%d sources, the last %+v", len(list), list[len(list)-1])
		}
		d.keeper.commit(1, nil)
		d.out()
		time.Sleep(ackDelay)
		if s := d.status(); s[len(s)-1].Committed != 1 {
			t.Errorf("%+v", s[len(s)-1])
		}
	})
}
