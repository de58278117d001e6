package outbox_test

import (
	"bufio"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// A process that is killed at a random instant, again and again, must lose
// nothing that it had accepted, deliver little twice, and keep the order within
// each key. The victim is this test binary; what it says on its standard output
// is in the pipe, whatever becomes of it.

// victimDir names the environment variable that makes the test binary a victim:
// the directory of the outbox, and the number of the round.
const victimDir = "EVENTPUSHER_TEST_VICTIM"

const (
	killRounds  = 20   // at least
	killEvents  = 1000 // that are accepted in all rounds, at least: a slow machine needs more rounds
	killPack    = 16
	killWindow  = 64 // for redelivery
	killPeers   = 24
	killReaders = 3
)

// killedBackends are the backends; the second one never takes some of the events.
var killedBackends = []string{"quick", "picky", "slow"}

func killOptions(dir string) outbox.EmbeddedOptions {
	return outbox.EmbeddedOptions{
		Dir:          dir,
		WindowLimits: outbox.WindowLimits{WindowEvents: 128, Redelivery: killWindow, ParkAttempts: 3},
	}.Quick(5*time.Millisecond, 64<<10)
}

// victim appends and delivers at random until it is killed.
func victim(where string) {
	dir, round, _ := strings.Cut(where, "#")
	e, _, err := outbox.OpenEmbedded(killOptions(dir))
	if err != nil {
		fmt.Println("E", err)
		os.Exit(1)
	}
	var lanes sync.WaitGroup
	for n, name := range killedBackends {
		woken := make(chan struct{}, 8)
		r, err := e.Reader(name, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
		if err != nil {
			fmt.Println("E", err)
			os.Exit(1)
		}
		for range 3 {
			lanes.Go(func() { victimLane(n, r, woken) })
		}
	}
	for seq := 0; ; {
		var (
			p    outbox.Pack
			said strings.Builder
		)
		for range 1 + rand.IntN(killPack) {
			seq++
			ev := chat(fmt.Sprintf("peer%d", rand.IntN(killPeers)), round+"-"+strconv.Itoa(seq))
			ev.Packet = strings.Repeat("x", rand.IntN(600))
			takers := outbox.Subscribers(1 + rand.IntN(1<<killReaders-1))
			p.Entries = append(p.Entries, outbox.Entry{Event: ev, Subscribers: takers})
			fmt.Fprintln(&said, "A", ev.ID, ev.To, uint64(takers))
		}
		if err := e.Append(p); err != nil {
			fmt.Println("E", err)
			os.Exit(1)
		}
		fmt.Print(said.String())
	}
}

// victimLane says what it has delivered before it settles it. The picky backend
// never takes events for some peers, and loses a few others for good.
func victimLane(n int, r outbox.Reader, woken chan struct{}) {
	for {
		items, _, _ := r.Take(nil, 4, false)
		items = r.Load(items)
		if len(items) == 0 {
			select {
			case <-woken:
			case <-time.After(2 * time.Millisecond):
			}
			continue
		}
		var (
			settlements []outbox.Settlement
			said        strings.Builder
		)
		for _, it := range items {
			s := outbox.Settlement{Item: it}
			switch {
			case n == 1 && badPeer(it.Event):
				s.Outcome, s.Delay = outbox.Retry, time.Millisecond
			case n == 1 && hopeless(it.Event):
				s.Outcome, s.Reason = outbox.Dead, "permanent"
			case rand.IntN(20) == 0:
				s.Outcome, s.Delay = outbox.Retry, time.Millisecond
			case rand.IntN(20) == 0:
				s.Outcome = outbox.Requeue
			default:
				fmt.Fprintln(&said, "D", n, it.Event.ID, it.Event.To)
			}
			settlements = append(settlements, s)
		}
		fmt.Print(said.String())
		if n == 2 {
			time.Sleep(time.Millisecond)
		}
		if err := r.Settle(settlements); err != nil {
			fmt.Println("E", err)
		}
	}
}

func badPeer(e *event.Event) bool { return e.To == "peer1@h" || e.To == "peer2@h" }

// hopeless events are always the same ones: one that died first and were
// delivered after a kill would look out of order.
func hopeless(e *event.Event) bool { return strings.HasSuffix(e.ID, "7") }

// killed is what all victims have said.
type killed struct {
	accepted  []string // ids in order
	takers    map[string]outbox.Subscribers
	peer      map[string]string
	delivered [killReaders]map[string]int      // how often
	first     [killReaders]map[string][]string // by peer: ids in the order of their first delivery
	repeated  [killReaders]int
}

func newKilled() *killed {
	k := &killed{takers: make(map[string]outbox.Subscribers), peer: make(map[string]string)}
	for n := range killReaders {
		k.delivered[n], k.first[n] = make(map[string]int), make(map[string][]string)
	}
	return k
}

func (k *killed) hear(t *testing.T, line string) {
	t.Helper()
	f := strings.Fields(line)
	switch {
	case len(f) == 4 && f[0] == "A":
		takers, err := strconv.ParseUint(f[3], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		k.accepted = append(k.accepted, f[1])
		k.takers[f[1]], k.peer[f[1]] = outbox.Subscribers(takers), f[2]
	case len(f) == 4 && f[0] == "D":
		n, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatal(err)
		}
		k.deliver(n, f[2], f[3])
	default:
		t.Fatalf("the victim says %q", line)
	}
}

func (k *killed) deliver(n int, id, peer string) {
	k.delivered[n][id]++
	if k.delivered[n][id] > 1 {
		k.repeated[n]++
		return
	}
	k.first[n][peer] = append(k.first[n][peer], id)
}

func TestEmbeddedSurvivesKills(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "outbox")
	k := newKilled()
	round := 0
	for ; round < killRounds || len(k.accepted) < killEvents && round < 10*killRounds; round++ {
		// The time runs from the first sign of life, so that slow machines kill
		// victims at work as well.
		killVictim(t, k, fmt.Sprintf("%s#%03d", dir, round), time.Duration(20+rand.IntN(150))*time.Millisecond)
	}
	d := openDurable(t, killOptions(dir), killedBackends...)
	if d.found.Clean || d.found.Backends[0].Parked == 0 {
		t.Errorf("found %+v", d.found)
	}
	for n, name := range killedBackends {
		r := d.readers[name]
		for s := r.Stats(); s.Waiting > 0; s = r.Stats() {
			items := d.takeWait(t, name, 64)
			var settlements []outbox.Settlement
			for _, it := range items {
				s := outbox.Settlement{Item: it}
				if n == 1 && hopeless(it.Event) {
					s.Outcome, s.Reason = outbox.Dead, "permanent"
				} else {
					k.deliver(n, it.Event.ID, string(it.Event.To))
				}
				settlements = append(settlements, s)
			}
			settle(t, r, settlements...)
		}
	}
	d.close(t)
	d = openDurable(t, killOptions(dir), killedBackends...)
	dead := make(map[string]map[string]bool)
	for _, l := range letters(t, d.DeadLetters()) {
		if dead[l.Backend] == nil {
			dead[l.Backend] = make(map[string]bool)
		}
		dead[l.Backend][l.Event.ID] = true
	}
	d.close(t)
	k.judge(t, round, killedBackends, dead)
}

func (k *killed) judge(t *testing.T, rounds int, names []string, dead map[string]map[string]bool) {
	t.Helper()
	if len(k.accepted) < killEvents || len(dead["picky"]) == 0 {
		t.Errorf("only %d accepted events and %d dead letters: nothing was tested", len(k.accepted), len(dead["picky"]))
	}
	for n, name := range names {
		missing := 0
		for _, id := range k.accepted {
			if k.takers[id].Has(n) && k.delivered[n][id] == 0 && !dead[name][id] {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("%s misses %d of %d accepted events", name, missing, len(k.accepted))
		}
		if most := rounds * (killWindow + killPack); k.repeated[n] > most {
			t.Errorf("%s got %d events again, at most %d may be", name, k.repeated[n], most)
		}
		for _, peer := range slices.Sorted(maps.Keys(k.first[n])) {
			if !slices.IsSortedFunc(k.first[n][peer], inOrder) {
				t.Errorf("%s got events of %s out of order", name, peer)
			}
		}
	}
	t.Logf("%d accepted, repeated %v in %d kills, %d dead letters", len(k.accepted), k.repeated, rounds, len(dead["picky"]))
}

// inOrder compares ids: the round, then the number within it.
func inOrder(a, b string) int {
	ra, na, _ := strings.Cut(a, "-")
	rb, nb, _ := strings.Cut(b, "-")
	if ra != rb {
		return strings.Compare(ra, rb)
	}
	x, _ := strconv.Atoi(na)
	y, _ := strconv.Atoi(nb)
	return x - y
}

// killVictim runs a victim, kills it some time after its first word, and hears
// what it has said.
func killVictim(t *testing.T, k *killed, where string, after time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+where)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	var kill *time.Timer
	// One that hangs shows where.
	hangs := time.AfterFunc(patience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer hangs.Stop()
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // the rest of a line that was being written is worth nothing
		}
		if kill == nil {
			hangs.Stop()
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		k.hear(t, line)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the victim ended by itself")
	}
	if kill == nil {
		t.Fatal("the victim said nothing")
	}
}
