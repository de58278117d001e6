package eventfeed

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestAckTimes(t *testing.T) {
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
		time.Sleep(longSilence - time.Second)
		d.want()
	})
}

// TestWritersQueueIsFull puts nothing off for good.
func TestWritersQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1)
		defer d.stop()
		stuck := func() { d.queue <- []byte("to='example.org'><stuck xmlns='' source='x'") }
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
		if n := len(d.disk.said); n != 251 {
			t.Errorf("%d calls, want 250 events and one resumption", n)
		}
	})
}

func TestGapTimes(t *testing.T) {
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
		time.Sleep(longSilence - time.Second)
		d.want("ack s e 4")
	})
}

// TestFullOutbox asks at a bounded rate for what is refused again and again.
func TestFullOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		d.greet("s", 1, 1)
		d.want("resume s", "snapshot s")
		d.events(1, 3)
		d.disk.full = true
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
		d.disk.full = false
		time.Sleep(askPause + ackDelay)
		d.out()
		d.events(4, 500)
		time.Sleep(ackDelay)
		if said := d.out(); said[len(said)-1] != "ack s e 500" {
			t.Errorf("said %v", said)
		}
	})
}

// TestForgetsSources bounds what names that change again and again can cost.
func TestForgetsSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 5*maxSources)
		defer d.stop()
		d.disk.hold = true
		d.greet("s", 1, 1)
		d.events(1, 1) // pending: not to be forgotten
		for n := range 2 * maxSources {
			time.Sleep(time.Second)
			d.greet(fmt.Sprintf("node%d", n), 1, 1)
		}
		list := d.Status()
		if len(list) != maxSources || list[len(list)-1].Name != "s" {
			t.Errorf("%d sources, the last %+v", len(list), list[len(list)-1])
		}
		d.disk.commit(1)
		d.out()
		time.Sleep(ackDelay)
		if s := d.Status(); s[len(s)-1].Committed != 1 {
			t.Errorf("%+v", s[len(s)-1])
		}
	})
}
