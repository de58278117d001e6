package outbox_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/pusher/outbox"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait; it only matters when something is broken.
const patience = 2 * time.Minute

// durable is an Embedded with its readers.
type durable struct {
	*outbox.Embedded
	found   outbox.Recovery
	readers map[string]outbox.Reader
	woken   chan struct{}
}

func openDurable(t *testing.T, o outbox.EmbeddedOptions) *durable {
	t.Helper()
	e, found, err := outbox.OpenEmbedded(o)
	if err != nil {
		t.Fatal(err)
	}
	d := &durable{Embedded: e, found: found, readers: make(map[string]outbox.Reader), woken: make(chan struct{}, 1)}
	for _, name := range o.Backends {
		r, err := e.Reader(name, func() {
			select {
			case d.woken <- struct{}{}:
			default:
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		d.readers[name] = r
	}
	return d
}

func (d *durable) close(t *testing.T) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// takeWait takes from a reader until it has something.
func (d *durable) takeWait(t *testing.T, name string, limit int) []*outbox.Item {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		items, due, _ := d.readers[name].Take(nil, limit, false)
		items = d.readers[name].Load(items)
		if len(items) > 0 {
			return items
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s gets nothing: %+v", name, d.readers[name].Stats())
		}
		wait := 50 * time.Millisecond
		if !due.IsZero() {
			wait = max(min(wait, time.Until(due)), 0)
		}
		select {
		case <-d.woken:
		case <-time.After(wait):
		}
	}
}

// drain takes and delivers all there is, and returns the ids in order.
func (d *durable) drain(t *testing.T, name string) []string {
	t.Helper()
	var got []string
	r := d.readers[name]
	for s := r.Stats(); s.Waiting > 0; s = r.Stats() {
		items := d.takeWait(t, name, 64)
		got = append(got, ids(items)...)
		deliver(t, r, items)
	}
	return got
}

func deliver(t *testing.T, r outbox.Reader, items []*outbox.Item) {
	t.Helper()
	var s []outbox.Settlement
	for _, it := range items {
		s = append(s, outbox.Settlement{Item: it})
	}
	settle(t, r, s...)
}

func (d *durable) append(t *testing.T, p outbox.Pack) {
	t.Helper()
	if err := d.Append(p); err != nil {
		t.Fatal(err)
	}
}

func TestEmbeddedKeepsWhatIsNotDelivered(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: filepath.Join(t.TempDir(), "o"), Backends: []string{"a", "b"}}
	d := openDurable(t, o)
	if !d.found.Clean || !d.found.Backends[0].New {
		t.Errorf("a new outbox: %+v", d.found)
	}
	d.append(t, pack(3, chat("x", "x1"), chat("x", "x2"), chat("y", "y1")))
	d.append(t, pack(2, chat("z", "z1")))
	items := take(d.readers["a"], 10, false)
	if diff := cmp.Diff([]string{"x1", "y1"}, ids(items)); diff != "" {
		t.Error(diff)
	}
	deliver(t, d.readers["a"], items[1:])
	d.close(t)

	d = openDurable(t, o)
	want := []outbox.BackendRecovery{{Name: "a", Waiting: 2}, {Name: "b", Waiting: 4}}
	if diff := cmp.Diff(want, d.found.Backends); diff != "" || !d.found.Clean {
		t.Errorf("clean %v, %s", d.found.Clean, diff)
	}
	if diff := cmp.Diff([]string{"x1", "x2"}, d.drain(t, "a")); diff != "" {
		t.Error(diff)
	}
	got := d.drain(t, "b")
	if slices.Index(got, "x1") > slices.Index(got, "x2") {
		t.Errorf("out of order: %v", got)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"x1", "x2", "y1", "z1"}, got); diff != "" {
		t.Error(diff)
	}
	d.close(t)
	for _, p := range []struct {
		name string
		mode os.FileMode
	}{{"", 0o700}, {"state.db", 0o600}, {"lock", 0o600}, {"segments", 0o700}} {
		if fi, err := os.Stat(filepath.Join(o.Dir, p.name)); err != nil || fi.Mode().Perm() != p.mode {
			t.Errorf("%s: %v, %v", p.name, fi.Mode(), err)
		}
	}
}

func TestEmbeddedBackendsComeAndGo(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), Backends: []string{"a", "b"}}
	d := openDurable(t, o)
	d.append(t, pack(3, chat("x", "x1"), chat("y", "y1")))
	d.close(t)

	o.Backends = []string{"c", "b"}
	_, _, err := outbox.OpenEmbedded(o)
	var orphan *outbox.OrphanError
	if !errors.As(err, &orphan) || !slices.Equal(orphan.Backends, []string{"a"}) {
		t.Fatalf("an orphan: %v", err)
	}
	if n, err := outbox.Forget(o.Dir, "a", 0); n != 2 || err != nil {
		t.Fatalf("forgot %d, %v", n, err)
	}
	if _, err := outbox.Forget(o.Dir, "a", 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("forgotten twice: %v", err)
	}
	d = openDurable(t, o) // c gets the number of a
	d.append(t, pack(1, chat("z", "z1")))
	d.append(t, pack(2, chat("z", "z2")))
	if s := d.readers["c"].Stats(); s.Waiting != 1 {
		t.Errorf("c: %+v", s)
	}
	if diff := cmp.Diff([]string{"z1"}, d.drain(t, "c")); diff != "" {
		t.Errorf("a new backend begins at the end: %s", diff)
	}
	d.Crash()
	d = openDurable(t, o)
	if diff := cmp.Diff([]string{"x1", "y1", "z2"}, d.drain(t, "b")); diff != "" {
		t.Errorf("b in another place of the list: %s", diff)
	}
	d.close(t)
}

func TestEmbeddedIsLocked(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), LockTimeout: -1}
	d := openDurable(t, o)
	_, _, err := outbox.OpenEmbedded(o)
	var locked *outbox.LockedError
	if !errors.As(err, &locked) || locked.Holder != fmt.Sprintf("process %d (%s)", os.Getpid(), filepath.Base(os.Args[0])) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := outbox.OpenLetters(o.Dir, -1); !errors.As(err, &locked) {
		t.Errorf("letters of a running outbox: %v", err)
	}
	d.close(t)
	d = openDurable(t, o)
	d.close(t)
}

func TestEmbeddedParksWhatKeepsFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := outbox.EmbeddedOptions{Dir: t.TempDir(), Backends: []string{"a"}}
		d := openDurable(t, o)
		r := d.readers["a"]
		d.append(t, pack(1, chat("bad", "bad1"), chat("bad", "bad2"), chat("good", "good1")))
		d.append(t, pack(1, chat("good", "good2")))
		for range outbox.DefaultParkAttempts {
			for _, it := range d.takeBad(t) {
				settle(t, r, outbox.Settlement{Item: it, Outcome: outbox.Retry, Delay: time.Second})
			}
		}
		d.append(t, pack(1, chat("bad", "bad3")))
		if s := r.Stats(); s.Parked != 3 || s.Waiting != 3 {
			t.Errorf("parked: %+v", s)
		}
		synctest.Wait()
		time.Sleep(100 * time.Millisecond) // of the saver
		synctest.Wait()
		d.Crash()

		d = openDurable(t, o)
		r = d.readers["a"]
		if b := d.found.Backends[0]; b.Parked != 3 || b.Waiting != 0 {
			t.Errorf("found %+v", b)
		}
		d.append(t, pack(1, chat("bad", "bad4"), chat("good", "good3")))
		items := take(r, 10, false)
		if diff := cmp.Diff([]string{"bad1", "good3"}, ids(items)); diff != "" {
			t.Error(diff)
		}
		if !items[0].Parked() || items[1].Parked() || items[0].Attempts != outbox.DefaultParkAttempts {
			t.Errorf("%+v", items[0])
		}
		deliver(t, r, items)
		if diff := cmp.Diff([]string{"bad2", "bad3", "bad4"}, d.drain(t, "a")); diff != "" {
			t.Error(diff)
		}
		d.append(t, pack(1, chat("bad", "bad5")))
		if items := take(r, 10, false); len(items) != 1 || items[0].Parked() {
			t.Error("the key is not as any other again")
		}
		d.close(t)
	})
}

// takeBad takes the one event that is there, after its pause.
func (d *durable) takeBad(t *testing.T) []*outbox.Item {
	t.Helper()
	for {
		items, due, _ := d.readers["a"].Take(nil, 10, false)
		items = d.readers["a"].Load(items)
		var bad []*outbox.Item
		for _, it := range items {
			if it.Event.To == "bad@h" {
				bad = append(bad, it)
			} else {
				deliver(t, d.readers["a"], []*outbox.Item{it})
			}
		}
		if len(bad) > 0 || due.IsZero() {
			return bad
		}
		time.Sleep(time.Until(due))
	}
}
