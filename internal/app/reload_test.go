package app

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/internal/xmppserver"
	"eventpusher/pusher/trace"
)

// taken is an event as a ledger has got it.
type taken struct {
	user string
	seq  int
	mark int // of the configuration whose filters it has passed
}

// ledgers are what destinations of the type ledger have got, by name.
type ledgers struct {
	mu  sync.Mutex
	got map[string][]taken
}

func (l *ledgers) of(name string) []taken {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]taken(nil), l.got[name]...)
}

// ledger has the keys of a destination that only this test has.
type ledger struct {
	All     *ledgers
	Version int
}

func (l *ledger) Keys() []config.Key {
	return []config.Key{config.Integer("version", &l.Version, 0, 0, 1<<20)}
}
func (l *ledger) Check(*config.Section) {}

func (l *ledger) Build(d config.Destination, _ *slog.Logger, _ backends.Compile) (backends.Backend, error) {
	chosen, err := form.Choose(d.Choice, nil, "chat.in")
	return &ledgerBackend{d.Name, l.All, chosen}, err
}

type ledgerBackend struct {
	name   string
	all    *ledgers
	chosen form.Chosen
}

func (b *ledgerBackend) Name() string              { return b.name }
func (b *ledgerBackend) Wants(e *event.Event) bool { return b.chosen.Wants(e) }
func (b *ledgerBackend) Limits() backends.Limits   { return backends.Limits{Lanes: 4, Batch: 64} }
func (b *ledgerBackend) Close() error              { return nil }

// Publish takes some time, so that calls are under way at any moment.
func (b *ledgerBackend) Publish(_ context.Context, batch []event.Event) []error {
	time.Sleep(2 * time.Millisecond)
	b.all.mu.Lock()
	defer b.all.mu.Unlock()
	for _, e := range batch {
		seq, err := strconv.Atoi(e.Body)
		mark, ok := e.Metadata["mark"].(int64)
		if err != nil || !ok {
			panic("an event without number or mark")
		}
		b.all.got[b.name] = append(b.all.got[b.name], taken{strings.Clone(string(e.User)), seq, int(mark)})
	}
	return make([]error, len(batch))
}

// reloading is an instance whose configuration a test changes.
type reloading struct {
	t       *testing.T
	app     *App
	ledgers *ledgers
	log     bytes.Buffer
	level   slog.LevelVar
	server  *xmppserver.Server
	session *xmppserver.Session

	mu    sync.Mutex
	text  string
	hosts string // in place of reloadHosts; empty: those
}

const reloadHosts = `"example.org"`

const reloadBase = `
[component]
address = %q
name = "events.example.org"
secret = "secret"
[general]
hosts = [` + reloadHosts + `]
[outbox]
path = %q
`

// newReloading starts an instance. The base stands before what the tests change; outbox are more
// keys of [outbox].
func newReloading(t *testing.T, text string, outbox ...string) *reloading {
	t.Helper()
	r := &reloading{t: t, ledgers: &ledgers{got: make(map[string][]taken)}}
	var err error
	r.server, err = xmppserver.New(xmppserver.Options{Component: "events.example.org", Secret: "secret", Hosts: []string{"example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf(reloadBase, r.server.Addr(), t.TempDir()) + strings.Join(outbox, "")
	own := config.DestinationType("ledger", func() config.Settings { return &ledger{All: r.ledgers} })
	load := func() (*config.Config, []config.Problem) {
		r.mu.Lock()
		defer r.mu.Unlock()
		base := base
		if r.hosts != "" {
			base = strings.Replace(base, reloadHosts, r.hosts, 1)
		}
		return config.Parse([]byte(strings.Replace(r.text, "BASE", base, 1)), nil, "", own)
	}
	r.write(text)
	cfg, problems := load()
	if cfg == nil {
		t.Fatal(problems)
	}
	r.app, err = New(cfg, Options{Log: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: &r.level})), Load: load, Changing: func(_, fresh *config.Config) { r.level.Set(fresh.Log.Level) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.app.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := r.server.Close(); err != nil {
			t.Error(err)
		}
	})
	r.accept()
	return r
}

// accept waits for the link.
func (r *reloading) accept() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	var err error
	if r.session, err = r.server.Accept(ctx); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reloading) write(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = text
}

// reload makes text the configuration.
func (r *reloading) reload(text string) ([]config.Problem, error) {
	r.write(text)
	return r.app.Reload(r.t.Context())
}

const reloadUsers = 16

// say sends a message of one of the users, with a number as its text.
func (r *reloading) say(seq int) {
	r.sayAt("example.org", seq)
}

// sayAt is say of a user of the host.
func (r *reloading) sayAt(host string, seq int) {
	err := r.session.Send(fmt.Sprintf("<message from='%s' to='events.example.org'><forwarded xmlns='urn:xmpp:forward:0'>"+
		"<message xmlns='jabber:client' type='chat' from='u%d@%s/r' to='peer@elsewhere.example' id='m%d'><body>%d</body></message></forwarded></message>",
		host, seq%reloadUsers, host, seq, seq))
	if err != nil {
		r.t.Error(err)
	}
}

// version is configuration number i: a filter that marks, another one in every third, a
// destination that stays, one that changes each time and one that is there in odd ones.
func version(i int) string {
	text := "BASE\n[log]\nlevel = 'warn'\n[[filter]]\nname = 'mark'\nmetadata = { mark = '" + strconv.Itoa(i) + "' }\n" +
		"[[destination]]\nname = 'stays'\ntype = 'ledger'\n" +
		"[[destination]]\nname = 'changes'\ntype = 'ledger'\nversion = " + strconv.Itoa(i) + "\n"
	if i%3 == 0 {
		text += "[[filter]]\nname = 'more'\nkeep = 'event.body != \"\"'\n"
	}
	if i%2 == 1 {
		text += "[[destination]]\nname = 'comes'\ntype = 'ledger'\nwhen = 'metadata.mark == " + strconv.Itoa(i) + "'\n"
	}
	return text
}

// testReloads reloads so many times, an even number, while 2000 events come in a second.
func testReloads(t *testing.T, reloads int, outbox ...string) {
	const rate, every = 2000, 5 * time.Millisecond
	r := newReloading(t, version(0), outbox...)
	r.level.Set(slog.LevelWarn)
	for deadline := time.Now().Add(time.Minute); r.app.standing() != nil && r.app.standing().Partitions < r.app.cfg().Outbox.NATS.Partitions; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", r.app.standing())
		}
	}
	for n := range trace.MaxEvents { // which is full at both measurements of the heap
		r.say(n)
	}
	r.awaitAll(trace.MaxEvents)
	goroutines, early := runtime.NumGoroutine(), heap()
	stop, said := make(chan struct{}), make(chan int)
	began := time.Now()
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		n := trace.MaxEvents
		for {
			for due := trace.MaxEvents + int(time.Since(began)*rate/time.Second); n < due; n++ {
				r.say(n)
			}
			select {
			case <-stop:
				said <- n
				return
			case <-tick.C:
			}
		}
	}()
	var longest time.Duration
	for i := 1; i <= reloads; i++ {
		time.Sleep(100 * time.Millisecond) // events go on meanwhile
		before := time.Now()
		if problems, err := r.reload(version(i)); err != nil || len(problems) > 0 {
			t.Fatalf("%v %v", problems, err)
		}
		longest = max(longest, time.Since(before))
	}
	close(stop)
	total := <-said
	rated := float64(total-trace.MaxEvents) / time.Since(began).Seconds()
	r.awaitAll(total)
	marks := make([]int, total) // by number, as the destination that stays has got them
	repeated := inOrder(t, "stays", r.ledgers.of("stays"), func(int) bool { return true }, total)
	for _, g := range r.ledgers.of("stays") {
		marks[g.seq] = g.mark
	}
	repeated += inOrder(t, "changes", r.ledgers.of("changes"), func(int) bool { return true }, total)
	// The one that comes and goes gets what has passed the filters of its configurations, and
	// nothing else. If it goes, what waits for it waits until it is there again.
	odd := func(seq int) bool { return marks[seq]%2 == 1 }
	if _, err := r.reload(version(reloads + 1)); err != nil {
		t.Fatal(err)
	}
	want := 0
	for seq := range total {
		if odd(seq) {
			want++
		}
	}
	for deadline := time.Now().Add(2 * time.Minute); len(r.ledgers.of("comes")) < want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("comes: %d of %d", len(r.ledgers.of("comes")), want)
		}
	}
	repeated += inOrder(t, "comes", r.ledgers.of("comes"), odd, total)
	for seq := 1; seq < total; seq++ {
		if marks[seq] < marks[seq-1] {
			t.Errorf("event %d has passed filters from before those of event %d", seq, seq-1)
		}
	}
	if _, err := r.reload(version(reloads + 2)); err != nil { // as many destinations as at the start
		t.Fatal(err)
	}
	noted := 3 * total * (int(unsafe.Sizeof(taken{})) + 16)
	const leak = 8 << 20
	late := heap()
	grown := func() int { return int(late) - int(early) - 2*noted } // slices that grow are twice as large for a while
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > goroutines+10 || grown() > leak; late = heap() {
		if time.Now().After(deadline) {
			t.Errorf("%d goroutines, before the reloads there were %d; %d bytes are kept after %d reloads", runtime.NumGoroutine(), goroutines, grown(), reloads)
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("figures: reload: %d reloads, %d events, %.0f a second, longest reload %v, %d repeated, heap %.1f MB before and %.1f MB at the end, %.1f MB of it for %d noted deliveries",
		reloads, total, rated, longest.Round(time.Millisecond), repeated, float64(early)/1e6, float64(late)/1e6, float64(noted)/1e6, 3*total)
	if most := reloads * 4 * 64; repeated > most {
		t.Errorf("%d deliveries are repeated, more than the calls that were under way", repeated)
	}
}

// awaitAll waits until both destinations that are always there have got so many events.
func (r *reloading) awaitAll(total int) {
	r.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); len(r.ledgers.of("stays")) < total || len(r.ledgers.of("changes")) < total; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d and %d of %d", len(r.ledgers.of("stays")), len(r.ledgers.of("changes")), total)
		}
	}
}

// inOrder checks that all numbers that are wanted have come, of each user in order, and returns how
// many came twice.
func inOrder(t *testing.T, name string, got []taken, wanted func(int) bool, total int) (repeated int) {
	t.Helper()
	last := make(map[string]int)
	seen := make([]bool, total)
	for _, g := range got {
		switch {
		case !wanted(g.seq):
			t.Errorf("%s: event %d, which another configuration has judged (mark %d)", name, g.seq, g.mark)
		case seen[g.seq]:
			repeated++
			continue
		case g.seq < last[g.user]:
			t.Errorf("%s: event %d came after %d", name, g.seq, last[g.user])
		}
		seen[g.seq], last[g.user] = true, g.seq
	}
	for seq := range total {
		if wanted(seq) && !seen[seq] {
			t.Errorf("%s: event %d is lost", name, seq)
		}
	}
	return repeated
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what is in a sync.Pool outlives one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestReload: 12 reloads under load. make soak has 50.
func TestReload(t *testing.T) { testReloads(t, 12) }

// TestReloadWithNATS is the same with an outbox that several instances can share.
func TestReloadWithNATS(t *testing.T) {
	testReloads(t, 6, fmt.Sprintf("engine = 'nats'\n[outbox.nats]\nurl = %q\n", harness.NATS(t, harness.NATSOptions{}).URL()))
}

// number returns the value of a counter or gauge.
func number(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	m := families[0].Metric[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// A configuration that is refused changes nothing, and says why.
func TestReloadThatIsRefused(t *testing.T) {
	const good = "BASE\n[[filter]]\nname = 'mark'\nmetadata = { mark = '1' }\n[[destination]]\nname = 'stays'\ntype = 'ledger'\n"
	r := newReloading(t, good)
	seq := 0
	flows := func() {
		t.Helper()
		r.say(seq)
		seq++
		for deadline := time.Now().Add(time.Minute); len(r.ledgers.of("stays")) < seq; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no event arrives")
			}
		}
	}
	flows()
	refused := 0.0
	for _, tc := range []struct{ text, path, problem string }{
		{strings.Replace(good, "type = 'ledger'", "type = 'leger'", 1), "destination[1].type", "write one of http, nats, kafka, rabbit, sns, ledger"},
		{good + "[[filter]]\nname = 'x'\nkeep = 'event.kind =='\n", "", "keep"},
		{strings.Replace(good, "metadata = {", "keep = 'event.kidn == \"\"'\nmetadata = {", 1), "", "kidn"},
		{strings.Replace(good, "BASE", "BASE\nmax_age = '1h'", 1), "outbox.max_age", "cannot change while eventpusher runs"},
		{good + "[admin]\nlisten = '127.0.0.1:9'\n", "admin.listen", "cannot change while eventpusher runs"},
		{good + "[log]\nformat = 'json'\n", "log.format", "cannot change while eventpusher runs"},
		{good + "[modules.mod_event_pusher.push]\n", "modules.mod_event_pusher.push", "cannot change while eventpusher runs"},
		{good + "[modules.mod_event_pusher]\nfollow = '6.9'\n", "modules.mod_event_pusher.follow", "cannot change while eventpusher runs"},
		{"no toml", "", "TOML"},
	} {
		problems, err := r.reload(tc.text)
		refused++
		if !errors.Is(err, ErrRefused) {
			t.Fatalf("%s: %v", tc.text, err)
		}
		found := strings.Contains(err.Error(), tc.problem)
		for _, p := range problems {
			found = found || (tc.path == "" || p.Path == tc.path) && strings.Contains(p.String(), tc.problem)
		}
		if !found {
			t.Errorf("%v, %v, want %s: %s", problems, err, tc.path, tc.problem)
		}
		if got := number(t, r.app.reloads.refused); got != refused || number(t, r.app.reloads.differs) != 1 {
			t.Errorf("counted %v, want %v", got, refused)
		}
		flows()
	}
	if problems, err := r.reload(good + "[log]\nlevel = 'error'\n"); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	if r.level.Level() != slog.LevelError || number(t, r.app.reloads.differs) != 0 || number(t, r.app.reloads.done) != 1 {
		t.Errorf("level %v, differs %v", r.level.Level(), number(t, r.app.reloads.differs))
	}
	flows()
}

// Hosts are served and no longer served as the configuration says, for which the link is set up anew;
// other changes leave it alone.
func TestReloadOfHosts(t *testing.T) {
	const text = "BASE\n[[filter]]\nname = 'mark'\nmetadata = { mark = '1' }\n[[destination]]\nname = 'stays'\ntype = 'ledger'\n"
	r := newReloading(t, text)
	seq := 0
	var want []int
	// each says that a message of a user of each host is an event or none.
	each := func(served ...string) {
		t.Helper()
		for _, host := range []string{"other.example", "third.example", "a.example.org", "conference.example.org", "events.example.org", "example.org"} {
			r.sayAt(host, seq)
			if slices.Contains(served, host) {
				want = append(want, seq)
			}
			seq++
		}
		for deadline := time.Now().Add(time.Minute); len(r.ledgers.of("stays")) < len(want); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("served are %q: %v", served, r.ledgers.of("stays"))
			}
		}
	}
	serve := func(hosts string) {
		t.Helper()
		r.mu.Lock()
		r.hosts = hosts
		r.mu.Unlock()
		if problems, err := r.reload(text); err != nil || (len(problems) > 0) != strings.Contains(hosts, "*") {
			t.Fatalf("%v %v", problems, err)
		}
	}
	each("example.org")
	serve(`"example.org", "other.example"`)
	r.accept()
	each("example.org", "other.example")
	serve(`"third.example", "example.org"`)
	r.accept()
	each("example.org", "third.example")
	serve(`"third.example", "example.org"`) // nothing new
	each("example.org", "third.example")
	serve(`"example.org", "*.example.org"`)
	r.accept()
	each("example.org", "a.example.org")
	serve(`"third.example", "example.org"`)
	r.accept()
	each("example.org", "third.example")
	var got []int
	for _, g := range r.ledgers.of("stays") {
		got = append(got, g.seq)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	var hosts []string
	for _, h := range r.app.Status().Component.Hosts {
		hosts = append(hosts, h.Host)
	}
	if !slices.Equal(hosts, []string{"conference.example.org", "example.org", "third.example"}) { // the rooms have forwarded something
		t.Errorf("status names %q", hosts)
	}
}

// A file that is read at the start only, and has changed since, needs a restart. A reload says so, however
// often it is asked, until the file holds again what it held.
func TestReloadOfFilesThatNeedARestart(t *testing.T) {
	peer := httptest.NewTLSServer(nil)
	defer peer.Close()
	held := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: peer.Certificate().Raw})
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{"component.pem": "component.tls", "pool.pem": "modules.mod_event_pusher.push", "app.pem": "modules.mod_event_pusher.push"}
	for name := range files {
		write(name, held)
	}
	text := fmt.Sprintf(reloadBase, strings.TrimPrefix(peer.URL, "https://"), t.TempDir()) + fmt.Sprintf(`
[component.tls]
cacertfile = "%[1]s/component.pem"
[modules.mod_event_pusher.push]
[modules.mod_push_service_mongoosepush]
pool_name = "gateway"
[outgoing_pools.http.gateway.connection]
host = "https://localhost:1"
tls.cacertfile = "%[1]s/pool.pem"
[[push.app]]
name = "app"
webpush.cacertfile = "%[1]s/app.pem"
`, dir)
	load := func() (*config.Config, []config.Problem) { return config.Parse([]byte(text), nil, "") }
	cfg, problems := load()
	if cfg == nil {
		t.Fatal(problems)
	}
	app, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler), Load: load})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for name, path := range files {
		write(name, slices.Concat(held, held))
		for range 2 {
			problems, err := app.Reload(ctx)
			named := func(p config.Problem) bool {
				return p.Path == path && p.Severity == config.Error && strings.Contains(p.Text, filepath.Join(dir, name))
			}
			if !errors.Is(err, ErrRefused) || !slices.ContainsFunc(problems, named) {
				t.Errorf("%s has changed: %v %v, want an error at %s that names the file", name, problems, err, path)
			}
		}
		write(name, held)
		if problems, err := app.Reload(ctx); err != nil {
			t.Errorf("%s is as it was: %v %v", name, problems, err)
		}
	}
}

// What needs a restart is named by its key, whatever it is.
func TestDifferences(t *testing.T) {
	old, problems := config.Parse([]byte(fmt.Sprintf(reloadBase, "localhost:5347", "outbox")), nil, "")
	if old == nil {
		t.Fatal(problems)
	}
	fresh := *old
	fresh.Component.Secret, fresh.Component.MaxStanzaSize, fresh.Component.TLS = "other", 1<<20, new(config.TLS)
	fresh.Component.Forwarders, fresh.General.Hosts, fresh.Log.Level = []string{"x.example"}, []string{"x.example"}, slog.LevelDebug
	fresh.Outbox.NATS.Stream, fresh.Outbox.OnDamage = "X", "skip"
	var got []string
	for _, p := range unchangeable(old, &fresh, newStarted(old, nil)) {
		got = append(got, p.Path)
		if strings.Contains(p.String(), "other") {
			t.Errorf("the secret is shown: %v", p)
		}
	}
	want := []string{"component.secret", "component.tls", "component.max_stanza_size", "outbox.on_damage", "outbox.nats"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, section := range []any{old.Component, old.Outbox, old.Admin} {
		for i := range reflect.TypeOf(section).NumField() {
			key := strings.ToLower(wordEnd.ReplaceAllString(reflect.TypeOf(section).Field(i).Name, "${1}${3}_${2}${4}"))
			example, err := os.ReadFile("../../config.toml.example")
			if err != nil {
				t.Fatal(err)
			}
			if text := string(example); !strings.Contains(text, "\n"+key+" = ") && !strings.Contains(text, "\n#"+key+" = ") && !strings.Contains(text, "."+key+"]") {
				t.Errorf("%s is no key of the configuration", key)
			}
		}
	}
}
