package devices

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/route"
	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/internal/jid"
)

// waits returns how long an error wants to wait, 0 if it does not.
func waits(err error) time.Duration {
	var wait *backends.WaitError
	if errors.As(err, &wait) {
		return wait.After
	}
	return 0
}

// TestPace: a burst goes out at once; then the newest waits and stands for the others.
func TestPace(t *testing.T) {
	f := newFixture(t, nil)
	start := f.now
	deliver := func(m *Message) string {
		switch err := f.Deliver(t.Context(), f.iphone.Node, m); {
		case err == nil:
			return "sent"
		case errors.Is(err, ErrCoalesced):
			return "coalesced"
		case errors.Is(err, ErrLimited):
			return "waits " + waits(err).Round(time.Millisecond).String()
		default:
			return err.Error()
		}
	}
	at := func(seconds int, body string) *Message {
		return message(body, start.Add(time.Duration(seconds)*time.Second))
	}
	silent := func(seconds int) *Message {
		m := at(seconds, "")
		m.EventID = fmt.Sprint("silent ", seconds)
		return m
	}
	for _, step := range []struct {
		now  int
		m    *Message
		want string
	}{
		{0, at(0, "1"), "sent"}, {1, at(1, "2"), "sent"}, {2, at(2, "3"), "sent"},
		{3, at(3, "4"), "waits 17s"}, {4, at(4, "5"), "waits 16s"},
		{5, at(3, "4"), "coalesced"},
		{6, silent(6), "coalesced"}, // what waits is shown and wakes the application too
		{20, at(4, "5"), "sent"},
		{21, silent(21), "waits 19s"}, {22, silent(22), "waits 18s"}, {22, silent(21), "coalesced"},
		{23, at(23, "6"), "waits 17s"}, {24, silent(22), "coalesced"},
		{40, at(23, "6"), "sent"}, {60, silent(60), "sent"},
		{120, at(90, "older"), "sent"}, // nothing waits, so that nothing is lost
		{120, at(80, "oldest"), "sent"},
	} {
		f.now = start.Add(time.Duration(step.now) * time.Second)
		if got := deliver(step.m); got != step.want {
			t.Errorf("%s at %d s: %s, want %s", step.m.EventID, step.now, got, step.want)
		}
	}
	if diff := cmp.Diff([]string{"1", "2", "3", "5", "6", "", "older", "oldest"}, f.apple.bodies()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Another device has its own pace.
	if err := f.Deliver(t.Context(), f.android.Node, message("first", f.now)); err != nil {
		t.Error(err)
	}
}

// TestNewestStandsForOlder: of those that wait the newest is told, and the older ones are
// done with that, whichever asks first when the time has come. A device would be told
// backwards otherwise, one for each interval.
func TestNewestStandsForOlder(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Burst = 1 })
	start := f.now
	var all []*Message
	for i := range 5 {
		all = append(all, message(fmt.Sprint(i), start.Add(time.Duration(i)*time.Second)))
	}
	for i, m := range all {
		f.now = m.Time
		if err := f.Deliver(t.Context(), f.iphone.Node, m); (err != nil) != (i > 0) || err != nil && !errors.Is(err, ErrLimited) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	f.now = start.Add(f.o.Interval)
	if err := f.Deliver(t.Context(), f.iphone.Node, all[4]); err != nil {
		t.Fatal(err)
	}
	for _, m := range all[1:4] {
		if err := f.Deliver(t.Context(), f.iphone.Node, m); !errors.Is(err, ErrCoalesced) {
			t.Errorf("%s: %v", m.EventID, err)
		}
	}
	// What comes later is no older one, and what is silent stands for nothing shown.
	silent := &Message{EventID: "silent", Time: start.Add(30 * time.Second)}
	f.now = silent.Time
	if err := f.Deliver(t.Context(), f.iphone.Node, silent); !errors.Is(err, ErrLimited) {
		t.Errorf("silent: %v", err)
	}
	f.now = start.Add(2 * f.o.Interval)
	if err := f.Deliver(t.Context(), f.iphone.Node, silent); err != nil {
		t.Errorf("silent: %v", err)
	}
	f.now = start.Add(3 * f.o.Interval)
	if err := f.Deliver(t.Context(), f.iphone.Node, message("next", start.Add(25*time.Second))); err != nil {
		t.Errorf("next: %v", err)
	}
	if diff := cmp.Diff([]string{"0", "4", "", "next"}, f.apple.bodies()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFailedAttemptsCostOneToken: a notification that has to be tried again takes the
// place of older ones, and needs no second token.
func TestFailedAttemptsCostOneToken(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Burst = 2 })
	f.apple.answers(func(context.Context, notify.Target) error { return errors.New("no route") })
	old, recent := message("old", f.now), message("recent", f.now.Add(time.Second))
	for _, m := range []*Message{old, recent} {
		if err := f.Deliver(t.Context(), f.iphone.Node, m); waits(err) < failedRetry {
			t.Fatalf("%v, want to be tried again", err)
		}
	}
	f.apple.answers(nil)
	if err := f.Deliver(t.Context(), f.iphone.Node, old); !errors.Is(err, ErrCoalesced) {
		t.Errorf("%v, want the newer one in its place", err)
	}
	if err := f.Deliver(t.Context(), f.iphone.Node, recent); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"recent"}, f.apple.bodies()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestVerdicts: what each answer of a provider means for the notification and for the
// device.
func TestVerdicts(t *testing.T) {
	gone := func(since time.Duration, doubtful bool) func(f *fixture) error {
		return func(f *fixture) error {
			d := &notify.DeadError{Doubtful: doubtful, Err: errors.New("answered 410")}
			if since != 0 {
				d.Since = f.now.Add(since)
			}
			return d
		}
	}
	answers := func(err error) func(*fixture) error { return func(*fixture) error { return err } }
	for name, tc := range map[string]struct {
		answer  func(*fixture) error
		reason  string
		after   time.Duration
		removed bool
	}{
		"taken":                    {answers(nil), "", 0, false},
		"dead":                     {gone(0, false), "gone", 0, true},
		"dead since":               {gone(time.Minute, false), "gone", 0, true},
		"dead before registration": {gone(-time.Minute, false), "permanent", 0, false},
		"doubtful":                 {gone(0, true), "permanent", 0, false},
		"never":                    {answers(backends.Permanent(errors.New("answered 400"))), "permanent", 0, false},
		"too large":                {answers(backends.Permanent(backends.ErrTooLarge)), "too_large", 0, false},
		"busy":                     {answers(backends.RetryAfter(time.Minute, errors.New("answered 429"))), "waiting", time.Minute, false},
		"no access":                {answers(backends.Paused(errors.New("answered 403"))), "waiting", failedRetry, false},
		"broken":                   {answers(errors.New("reset")), "waiting", failedRetry, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.apple.answers(func(context.Context, notify.Target) error { return tc.answer(f) })
			err := f.Deliver(t.Context(), f.iphone.Node, message("hello", f.now))
			if backends.Reason(err) != tc.reason || waits(err) < tc.after || tc.after == 0 && waits(err) > 0 {
				t.Errorf("%v (%s), want %s", err, backends.Reason(err), tc.reason)
			}
			if _, err := f.store.Get(t.Context(), f.iphone.Node); errors.Is(err, store.ErrUnknown) != tc.removed {
				t.Errorf("the device: %v, want removed %v", err, tc.removed)
			}
			if _, err := f.store.Get(t.Context(), f.android.Node); err != nil {
				t.Errorf("another device: %v", err)
			}
		})
	}
}

// TestDoubtfulDeaths are believed of a provider that has taken something, a few in a
// row.
func TestDoubtfulDeaths(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.Deliver(t.Context(), f.iphone.Node, message("hello", f.now)); err != nil {
		t.Fatal(err)
	}
	f.apple.answers(func(context.Context, notify.Target) error {
		return &notify.DeadError{Doubtful: true, Err: errors.New("answered 400 BadDeviceToken")}
	})
	var got []string
	for i := range maxDoubts + 2 {
		c := f.register(t, notify.APNs, fmt.Sprint("c0ffee", i))
		got = append(got, backends.Reason(f.Deliver(t.Context(), c.Node, message("hello", f.now))))
	}
	want := strings.Fields(strings.Repeat("gone ", maxDoubts) + "permanent permanent")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestRenewedMeanwhile: a device that registers while its death is on its way lives.
func TestRenewedMeanwhile(t *testing.T) {
	f := newFixture(t, nil)
	f.apple.answers(func(context.Context, notify.Target) error {
		f.now = f.now.Add(time.Second)
		f.register(t, notify.APNs, "c0ffee")
		return &notify.DeadError{Err: errors.New("answered 410")}
	})
	if err := f.Deliver(t.Context(), f.iphone.Node, message("hello", f.now)); backends.Reason(err) != "permanent" {
		t.Errorf("got %v", err)
	}
	if _, err := f.store.Get(t.Context(), f.iphone.Node); err != nil {
		t.Errorf("the device: %v", err)
	}
}

// TestSlowProvider: a lane waits for the answer, and another provider's are not touched.
func TestSlowProvider(t *testing.T) {
	f := newFixture(t, nil)
	synctest.Test(t, func(t *testing.T) {
		d := NewDelivery(f.o)
		d.Attach(f.store)
		f.apple.answers(func(context.Context, notify.Target) error {
			time.Sleep(5 * time.Second)
			return nil
		})
		now, took := time.Now(), make(chan time.Duration, 1)
		go func() {
			began := time.Now()
			if err := d.Deliver(t.Context(), f.iphone.Node, message("slow", now)); err != nil {
				t.Error(err)
			}
			took <- time.Since(began)
		}()
		synctest.Wait()
		if err := d.Deliver(t.Context(), f.android.Node, message("other", now)); err != nil || time.Since(now) > 0 {
			t.Errorf("another provider: %v after %v", err, time.Since(now))
		}
		if got := <-took; got != 5*time.Second {
			t.Errorf("it took %v", got)
		}
		d.cancel()
		d.writes.Wait()
	})
}

// TestRestingProvider: while a provider rests, neither it nor the store is asked.
func TestRestingProvider(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Burst = 100 })
	calls := 0
	f.apple.answers(func(context.Context, notify.Target) error { calls++; return errors.New("reset") })
	var devices []store.Credentials
	for i := range 3 {
		c, err := f.store.Put(t.Context(), store.Device{
			Owner: jid.JID(fmt.Sprintf("user%d@example.org", i)), App: "chat", Target: notify.Target{Kind: notify.APNs, Address: config.Secret(fmt.Sprint("beef", i))},
		}, f.now)
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, c)
	}
	var last error
	for i := range 20 {
		last = f.Deliver(t.Context(), devices[i%3].Node, message(fmt.Sprint(i), f.now.Add(time.Duration(i))))
		if waits(last) == 0 {
			t.Fatalf("got %v", last)
		}
	}
	if calls != 5 || !errors.Is(last, route.ErrResting) {
		t.Errorf("%d calls, %v", calls, last)
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Deliver(t.Context(), devices[0].Node, message("more", f.now.Add(time.Minute))); !errors.Is(err, route.ErrResting) {
		t.Errorf("the store was asked: %v", err)
	}
}

// awayStore cannot be reached.
type awayStore struct{ store.Devices }

var errAway = errors.New("no connection")

func (awayStore) Get(context.Context, string) (store.Device, error) { return store.Device{}, errAway }

// TestStoreAway: nobody is told that a device is gone while its store cannot be reached.
func TestStoreAway(t *testing.T) {
	f := newFixture(t, nil)
	f.Attach(awayStore{f.store})
	if err := f.Deliver(t.Context(), f.iphone.Node, message("hi", f.now)); !errors.Is(err, errAway) || backends.Reason(err) != "transient" {
		t.Errorf("got %v", err)
	}
}

func TestDeliverRefuses(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.Deliver(t.Context(), "nobody", message("x", f.now)); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	c, err := f.store.Put(t.Context(), store.Device{App: "removed", Target: notify.Target{Kind: notify.FCM, Address: "x"}}, f.now)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Deliver(t.Context(), c.Node, message("x", f.now)); backends.Reason(err) != "permanent" {
		t.Errorf("an application that is not configured: %v", err)
	}
	if _, err := f.store.Verify(t.Context(), f.iphone.Node, f.iphone.Secret); err != nil {
		t.Error(err)
	}
	if _, err := f.store.Verify(t.Context(), f.iphone.Node, f.android.Secret); !errors.Is(err, store.ErrSecret) {
		t.Errorf("another's secret: %v", err)
	}
}

// TestUse: that a device was told something is stored soon, once a day, and at the end.
func TestUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		start := f.now.Truncate(time.Millisecond)
		deliver := func(c store.Credentials, body string, after time.Duration) {
			t.Helper()
			f.now = start.Add(after)
			if err := f.Deliver(t.Context(), c.Node, message(body, f.now)); err != nil {
				t.Fatal(err)
			}
		}
		used := func(c store.Credentials) time.Duration {
			d, err := f.store.Get(t.Context(), c.Node)
			if err != nil {
				t.Fatal(err)
			}
			return d.Used.Sub(start)
		}
		for _, step := range []struct{ after, want time.Duration }{{time.Hour, time.Hour}, {2 * time.Hour, time.Hour}, {30 * time.Hour, 30 * time.Hour}} {
			deliver(f.iphone, step.after.String(), step.after)
			time.Sleep(2 * touchDelay) // the store collects changes for a moment
			synctest.Wait()
			if got := used(f.iphone); got != step.want {
				t.Errorf("used %v after the start, want %v", got, step.want)
			}
		}
		deliver(f.android, "last", time.Minute)
		if err := f.Delivery.Close(); err != nil {
			t.Error(err)
		}
		if got := used(f.android); got != time.Minute {
			t.Errorf("at the end: used %v after the start", got)
		}
	})
}

// TestCallsOnly: a device whose topic is for calls gets calls, and nothing else: iOS ends an
// application that shows no call.
func TestCallsOnly(t *testing.T) {
	f := newFixture(t, nil)
	c, err := f.store.Put(t.Context(), store.Device{Owner: "bob@example.org", App: "chat", Target: notify.Target{Kind: notify.APNs, Address: "ca11", Topic: "org.example.chat.voip"}}, f.now)
	if err != nil {
		t.Fatal(err)
	}
	call := func(step string) *Message {
		return &Message{EventID: step, Time: f.now, Summary: Summary{field("message-sender", "alice@example.org"), field("jingle-message", step), field("jingle-session-id", "s")}}
	}
	for name, m := range map[string]*Message{"a message": message("hello", f.now), "silent": {EventID: "s", Time: f.now}, "a call that is over": call("retract")} {
		if err := f.Deliver(t.Context(), c.Node, m); !errors.Is(err, ErrNoCall) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := f.Deliver(t.Context(), c.Node, call("propose")); err != nil {
		t.Error(err)
	}
	if n := len(f.apple.bodies()); n != 1 {
		t.Errorf("%d were sent, want the call alone", n)
	}
}
