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

func openDurable(t *testing.T, o outbox.EmbeddedOptions, names ...string) *durable {
	t.Helper()
	e, found, err := outbox.OpenEmbedded(o)
	if err != nil {
		t.Fatal(err)
	}
	d := &durable{Embedded: e, found: found, readers: make(map[string]outbox.Reader), woken: make(chan struct{}, 1)}
	for _, name := range names {
		d.read(t, name)
	}
	return d
}

func (d *durable) wake() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
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
	o := outbox.EmbeddedOptions{Dir: filepath.Join(t.TempDir(), "o")}
	d := openDurable(t, o, "a", "b")
	if !d.found.Clean || len(d.found.Backends) != 0 {
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

	d = openDurable(t, o, "a", "b")
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

// waits returns what the outbox keeps, as "name: waiting+parked".
func (d *durable) waits(t *testing.T) (list []string) {
	t.Helper()
	all, err := d.Backends()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		list = append(list, fmt.Sprintf("%s: %d+%d", b.Name, b.Waiting, b.Parked))
	}
	return list
}

// read opens one more reader, while the outbox runs.
func (d *durable) read(t *testing.T, name string) outbox.Reader {
	t.Helper()
	r, err := d.Reader(name, func() { d.wake() })
	if err != nil {
		t.Fatal(err)
	}
	d.readers[name] = r
	return r
}

// What waits for a backend is still known if forgetting it fails.
func TestEmbeddedForgetFails(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}
	d := openDurable(t, o, "a", "b")
	d.append(t, pack(3, chat("x", "x1"), chat("y", "y1")))
	d.close(t)

	d = openDurable(t, o, "b")
	if err := d.CloseDatabase(); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Forget("a"); n != 0 || err == nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	if n := d.Appended("a"); n != 2 {
		t.Errorf("%d events of a, want 2", n)
	}
	d.Crash()
}

// Backends come and go between starts and while the outbox runs.
func TestEmbeddedBackendsComeAndGo(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}
	d := openDurable(t, o, "a", "b")
	d.append(t, pack(3, chat("x", "x1"), chat("y", "y1")))
	d.close(t)

	d = openDurable(t, o, "b") // a is not configured any more
	if diff := cmp.Diff([]string{"a: 2+0", "b: 2+0"}, d.waits(t)); diff != "" {
		t.Error(diff)
	}
	if n, err := d.Forget("b"); n != 0 || err == nil {
		t.Errorf("forgot %d of a backend that is read", n)
	}
	if n, err := d.Forget("a"); n != 2 || err != nil {
		t.Fatalf("forgot %d, %v", n, err)
	}
	if _, err := d.Forget("a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("forgotten twice: %v", err)
	}
	c := d.read(t, "c")
	if n := c.Number(); n == 0 {
		t.Errorf("c gets the number of a, which packs on their way may still name")
	}
	d.append(t, pack(1|1<<c.Number(), chat("z", "z1")))
	if diff := cmp.Diff([]string{"z1"}, d.drain(t, "c")); diff != "" {
		t.Errorf("a new backend begins at the end: %s", diff)
	}
	d.append(t, pack(2, chat("z", "z2")))
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	d.Crash()

	d = openDurable(t, o, "d", "b") // d gets the number of a
	if n := d.readers["d"].Number(); n != 0 {
		t.Errorf("d has number %d", n)
	}
	if s := d.readers["d"].Stats(); s.Waiting != 0 {
		t.Errorf("d: %+v", s)
	}
	if diff := cmp.Diff([]string{"x1", "y1", "z2"}, d.drain(t, "b")); diff != "" {
		t.Errorf("b: %s", diff)
	}
	if diff := cmp.Diff([]string{"b: 0+0", "c: 0+0", "d: 0+0"}, d.waits(t)); diff != "" {
		t.Error(diff)
	}
	d.close(t)
}

// A reader is closed without loss, also of what is appended before it is opened again.
func TestEmbeddedReaderIsClosedAndOpenedAgain(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{ParkAttempts: 1}}
	d := openDurable(t, o, "a", "b")
	d.append(t, pack(3, chat("x", "x1"), chat("x", "x2"), chat("y", "y1"), chat("z", "z1")))
	items := take(d.readers["a"], 10, false)
	settle(t, d.readers["a"], outbox.Settlement{Item: items[0], Outcome: outbox.Retry, Delay: time.Hour})
	settle(t, d.readers["a"], outbox.Settlement{Item: items[1], Outcome: outbox.Delivered})
	settle(t, d.readers["a"], outbox.Settlement{Item: items[2], Outcome: outbox.Requeue})
	if err := d.readers["a"].Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.readers["a"].Settle([]outbox.Settlement{{Item: items[2], Outcome: outbox.Delivered}}); err == nil {
		t.Error("a closed reader takes settlements")
	}
	d.append(t, pack(3, chat("v", "v1")))
	if diff := cmp.Diff([]string{"a: 2+2", "b: 5+0"}, d.waits(t)); diff != "" {
		t.Error(diff)
	}
	d.read(t, "a")
	d.append(t, pack(3, chat("w", "w1")))
	got := d.drain(t, "a")
	slices.Sort(got)
	if diff := cmp.Diff([]string{"v1", "w1", "x1", "x2", "z1"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := d.Reader("a", func() {}); err == nil {
		t.Error("a backend is read twice")
	}
	d.close(t)
}

// What an unread backend waits for keeps its files.
func TestEmbeddedKeepsTheFilesOfUnreadBackends(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}.Quick(time.Millisecond, 4<<10)
	d := openDurable(t, o, "a", "b")
	d.append(t, pack(3, chat("x", "x0")))
	if err := d.readers["a"].Close(); err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		d.append(t, pack(2, chat("x", fmt.Sprint("x", n+1))))
	}
	d.drain(t, "b")
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	before := len(segments(t, o.Dir))
	d.read(t, "a")
	if diff := cmp.Diff([]string{"x0"}, d.drain(t, "a")); diff != "" || before < 5 {
		t.Errorf("%d files; %s", before, diff)
	}
	deadline := time.Now().Add(time.Minute)
	for len(segments(t, o.Dir)) >= before { // a passes over the events of b, and saves that
		if time.Now().After(deadline) {
			t.Fatalf("none of %d files has gone", before)
		}
		time.Sleep(time.Millisecond)
	}
	d.close(t)
}

func TestEmbeddedRename(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{ParkAttempts: 1}}
	d := openDurable(t, o, "a", "b")
	d.append(t, pack(1, chat("x", "x1"), chat("y", "y1"), chat("z", "z1")))
	items := take(d.readers["a"], 2, false)
	settle(t, d.readers["a"], outbox.Settlement{Item: items[0], Outcome: outbox.Retry})
	settle(t, d.readers["a"], outbox.Settlement{Item: items[1], Outcome: outbox.Dead, Reason: "permanent"})
	if err := d.Rename("a", "new"); err == nil {
		t.Error("a backend that is read has been renamed")
	}
	if err := d.readers["a"].Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Rename("a", "b"); err == nil {
		t.Error("renamed to one that is there")
	}
	if err := d.Rename("nobody", "new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("renamed one that is not there: %v", err)
	}
	if err := d.Rename("a", "new"); err != nil {
		t.Fatal(err)
	}
	if n, err := outbox.MoveLetters(d, "a", "new"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	d.close(t)
	d = openDurable(t, o, "new")
	if diff := cmp.Diff([]string{"b: 0+0", "new: 1+1"}, d.waits(t)); diff != "" {
		t.Error(diff)
	}
	if n, err := d.Replay(outbox.LetterFilter{Backend: "new"}); n != 1 || err != nil {
		t.Errorf("replayed %d, %v", n, err)
	}
	got := d.drain(t, "new")
	slices.Sort(got)
	if diff := cmp.Diff([]string{"x1", "y1", "z1"}, got); diff != "" {
		t.Error(diff)
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
		o := outbox.EmbeddedOptions{Dir: t.TempDir()}
		d := openDurable(t, o, "a")
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

		d = openDurable(t, o, "a")
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
