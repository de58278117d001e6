package jetstream

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// The partition of a key must never change: what waits was divided by it.
func TestPartitionsNeverChange(t *testing.T) {
	for key, want := range map[string]int{"": 5, "alice@example.org bob@example.org": 8, "zoë@example.org": 2} {
		if got := partitionOf(key, 16); got != want {
			t.Errorf("%q is in partition %d, and was in %d", key, got, want)
		}
	}
	var count [16]int
	for n := range 16_000 {
		count[partitionOf(fmt.Sprintf("user%d@example.org", n), 16)]++
	}
	for p, n := range count {
		if n < 800 || n > 1200 {
			t.Errorf("partition %d has %d of 16000 keys", p, n)
		}
	}
}

func TestConsumerNames(t *testing.T) {
	for _, test := range []struct {
		backend string
		number  uint8
		want    string
	}{
		{"sns", 0, "sns-0"},
		{"http:http_pool/ab12cd34", 3, "http_http_pool_ab12cd34-3"},
		{"ä.b*c>", 63, "__b_c_-63"},
	} {
		if got := consumerName(test.backend, test.number); got != test.want {
			t.Errorf("%q: %q, want %q", test.backend, got, test.want)
		}
	}
}

func TestParkedMessages(t *testing.T) {
	n := names{"P"}
	e := &event.Event{ID: "1", Direction: event.In, From: "a@h/r", To: "b@h"}
	for _, id := range []outbox.ParkedID{outbox.EventID(3, 1<<40), outbox.ReplayID(63, 7)} {
		m := parkedMessage(n, 12, &outbox.ParkedEvent{ID: id, Event: e, Accepted: time.Unix(5, 6).UTC(), Attempts: 4})
		partition, p, err := readParked(n, m.Subject, m.Header)
		want := outbox.Restored{ID: id, Key: []byte(e.Key()), Accepted: time.Unix(5, 6).UTC(), Attempts: 4}
		if diff := cmp.Diff(want, p); err != nil || partition != 12 || diff != "" {
			t.Errorf("%s: partition %d, %v %s", m.Subject, partition, err, diff)
		}
	}
}

func FuzzReadParked(f *testing.F) {
	f.Add("P.parked.1.2.event.3", "1 2 YQ==")
	f.Add("P.parked.1.2.replay.3", "-1 2 YQ==")
	f.Add("P.parked.1.2", "1")
	f.Add("Q.parked.1.2.event.3", "1 2 YQ==")
	f.Fuzz(func(t *testing.T, subject, header string) {
		n := names{"P"}
		partition, p, err := readParked(n, subject, nats.Header{headerParked: {header}})
		if err != nil {
			return
		}
		again := parkedMessage(n, partition, &outbox.ParkedEvent{ID: p.ID, Event: &event.Event{User: "x"}, Accepted: p.Accepted, Attempts: p.Attempts})
		if _, q, err := readParked(n, again.Subject, again.Header); err != nil || q.ID != p.ID {
			t.Errorf("%s becomes %s: %v", subject, again.Subject, err)
		}
	})
}

func FuzzDecodeProgress(f *testing.F) {
	f.Add(encodeProgress("token", &outbox.Cut{Progress: outbox.Progress{Floor: 7, Top: 12, Pending: []uint64{8, 11}}}))
	f.Add([]byte{})
	f.Add([]byte{200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		token, c, err := decodeProgress(b)
		if err != nil {
			return
		}
		token2, c2, err := decodeProgress(encodeProgress(token, &c))
		if err != nil || token2 != token || c2.Floor != c.Floor || c2.Top != c.Top || !cmp.Equal(c.Pending, c2.Pending) {
			t.Errorf("%v becomes %v: %v", c, c2, err)
		}
	})
}

// Every partition has exactly one instance that should have it, whoever counts.
func TestSharesAddUp(t *testing.T) {
	for _, instances := range []int{1, 2, 3, 5, 16, 20} {
		ids := make([]string, instances)
		for i := range ids {
			ids[i] = fmt.Sprintf("id%02d", i)
		}
		total := 0
		for _, id := range ids {
			n := shareOf(ids, id, 16)
			if n < 16/instances || n > 16/instances+1 {
				t.Errorf("%s of %d has %d", id, instances, n)
			}
			total += n
		}
		if total != 16 {
			t.Errorf("%d instances should have %d of 16", instances, total)
		}
	}
}

// seen is a cluster that has seen another instance, then so much silence.
func seen(silence time.Duration) *cluster {
	e := &Engine{o: Options{Takeover: 10 * time.Second}}
	now := time.Now()
	return &cluster{e: e, id: "me", echo: now, members: map[string]*member{"other": {seen: now.Add(-silence)}}}
}

func TestSilenceCountsOnlyWhileItWouldBeHeard(t *testing.T) {
	if !seen(9 * time.Second).lives("other") {
		t.Error("dead before its time")
	}
	if seen(10 * time.Second).lives("other") {
		t.Error("alive after its time")
	}
	if seen(0).lives("unknown") {
		t.Error("an instance without a sign of life lives")
	}
	// We were cut off: our own signs have not come back either.
	c := seen(time.Hour)
	c.echo = c.members["other"].seen.Add(time.Second)
	if !c.lives("other") {
		t.Error("taken for dead although nothing could be heard")
	}
}

func TestDifferences(t *testing.T) {
	want := js.StreamConfig{Subjects: []string{"P.log.1"}, Replicas: 1, Storage: js.FileStorage, MaxMsgs: -1, MaxMsgsPerSubject: -1, Discard: js.DiscardNew}
	if got := differences(want, want); len(got) > 0 {
		t.Errorf("with itself: %v", got)
	}
	for name, change := range map[string]func(*js.StreamConfig){
		"subjects":  func(c *js.StreamConfig) { c.Subjects = []string{"P.log.>"} },
		"retention": func(c *js.StreamConfig) { c.Retention = js.WorkQueuePolicy },
		"storage":   func(c *js.StreamConfig) { c.Storage = js.MemoryStorage },
		"replicas":  func(c *js.StreamConfig) { c.Replicas = 3 },
		"max_age":   func(c *js.StreamConfig) { c.MaxAge = time.Hour },
		"max_msgs":  func(c *js.StreamConfig) { c.MaxMsgs = 10 },
		"discard":   func(c *js.StreamConfig) { c.Discard = js.DiscardOld },
		"sealed":    func(c *js.StreamConfig) { c.Sealed = true },
	} {
		got := want
		change(&got)
		if list := differences(want, got); len(list) != 1 {
			t.Errorf("%s: %v", name, list)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, err := range []error{
		nats.ErrAuthorization, js.ErrJetStreamNotEnabled, nats.ErrNoResponders, js.ErrJetStreamNotEnabledForAccount, nats.ErrSecureConnRequired,
		&js.APIError{Code: 503, ErrorCode: errNoPeers}, &js.APIError{Code: 500, ErrorCode: errsNoSpace[2]},
	} {
		if got := explain(err); !errors.Is(got, err) || len(got.Error()) < len(err.Error())+10 {
			t.Errorf("%v: %v", err, got)
		}
	}
	if explain(nil) != nil || explain(errDeposed) != errDeposed {
		t.Error("what needs no explanation gets one")
	}
}

// The goroutine that reads the link asks for positions, and must not wait for NATS.
func TestPositionsDoNotWait(t *testing.T) {
	e := &Engine{}
	e.positions.set([]outbox.Position{{Source: "s", Epoch: "e", Seq: 1}}, 7)
	e.positions.mu.Lock() // as during a request
	defer e.positions.mu.Unlock()
	got := make(chan []outbox.Position, 1)
	go func() { got <- e.Positions() }()
	select {
	case list := <-got:
		if len(list) != 1 || list[0].Seq != 1 {
			t.Errorf("positions %v", list)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Positions waits for a request")
	}
}

// A turn at the link that nobody has taken is replaced by the next one; Lead may take it at
// that very moment.
func TestTurnsAreReplaced(t *testing.T) {
	e := &Engine{ctx: t.Context()}
	c := newCluster(e)
	defer c.die()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 50_000 {
			c.mu.Lock()
			c.begin(claimLink)
			c.mine[claimLink].stop()
			c.mu.Unlock()
		}
	}()
	var last context.Context
	deadline := time.After(time.Minute)
	for over := false; !over; {
		select {
		case last = <-c.link:
		case <-done:
			over = true
		case <-deadline:
			t.Fatal("a turn waits for the last one to be taken, with everything locked")
		}
	}
	select {
	case last = <-c.link:
	default:
	}
	if last == nil {
		t.Error("no turn has come")
	}
}

func TestSurplus(t *testing.T) {
	state := js.StreamState{Msgs: 1000, FirstSeq: 5001}
	for _, test := range []struct {
		tooMuch, of int64
		want        uint64
	}{{1, 100, 5012}, {50, 100, 5502}, {100, 100, 6002}, {1, 1 << 50, 5002}} {
		if got := surplus(state, test.tooMuch, test.of); got != test.want {
			t.Errorf("%d of %d bytes too much: before %d, want %d", test.tooMuch, test.of, got, test.want)
		}
	}
}

// A turn at the link that is given up is over, wherever it still waits to be taken: Lead
// of a former life may give up the claim of the present one, and must not lead on then.
func TestTurnsEndWithTheirClaim(t *testing.T) {
	e := &Engine{ctx: t.Context()}
	c := newCluster(e)
	defer c.die()
	c.mu.Lock()
	c.begin(claimLink)
	c.mu.Unlock()
	c.release(claimLink)
	if life := <-c.link; life.Err() == nil {
		t.Error("a turn goes on after its claim was given up")
	}
}
