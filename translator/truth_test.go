package translator

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// world is a cluster of nodes with an event-feed each, the link to it, and what a
// consumer of our events believes.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	tr      *Translator
	clock   int // seconds since start
	linked  bool
	nodes   []*node
	people  map[jid.JID]*person
	ids     map[string]bool  // of events that were seen
	view    map[jid.JID]bool // who is online, as the consumer has it
	doubt   map[jid.JID]bool // of whom the consumer cannot know until the next event
	hazy    map[jid.JID]bool // nor before everything is quiet
	history []string
	counts  map[string]int
}

// node is a source with what it has still to deliver.
type node struct {
	index  int
	module *module
	queue  []trust.Fact
	// done are the facts delivered in this epoch since the last loss and, by this
	// process or the one before it, since the last snapshot.
	done    []trust.Fact
	here    int              // of them, the latest, by this process
	again   map[jid.JID]bool // of whom facts come a second time since a restart
	resumed bool             // on this link
	// told says that nothing is known of the node but that all has been told by a
	// process before this one; whole that all its sessions are known.
	told, whole bool
	snapshots   int
}

// person is the truth about a full JID.
type person struct {
	at        int // the node, -1 for none
	available bool
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), linked: true, people: map[jid.JID]*person{},
		ids: map[string]bool{}, view: map[jid.JID]bool{}, doubt: map[jid.JID]bool{}, hazy: map[jid.JID]bool{}, counts: map[string]int{},
	}
	for _, who := range []string{"alice", "bob", "carol"} {
		for r := range 2 {
			w.people[jid.JID(fmt.Sprintf("%s@localhost/r%d", who, r))] = &person{at: -1}
		}
	}
	for i := range 2 {
		w.nodes = append(w.nodes, &node{index: i, module: &module{source: fmt.Sprintf("xmpp%d", i), epoch: "0"}, again: map[jid.JID]bool{}})
	}
	w.start()
	return w
}

// start begins a process of ours.
func (w *world) start() {
	w.tr = New(Options{Hosts: []string{"localhost"}, Component: "events.localhost", Now: func() time.Time { return start.Add(w.now()) }})
	for _, n := range w.nodes {
		n.resumed, n.told, n.whole, n.here = false, true, false, 0
	}
}

func (w *world) now() time.Duration { return time.Duration(w.clock) * time.Second }

func (w *world) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	w.counts[strings.Fields(line)[0]]++
	w.history = append(w.history, line)
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nthe last steps:\n%s", fmt.Sprintf(format, args...), strings.Join(w.history[max(0, len(w.history)-60):], "\n"))
}

func (n *node) report(w *world, fact string, user string) {
	n.queue = append(n.queue, *n.module.report(fact, user, w.now()))
	w.note("report %s at %d: %s", fact, n.index, user)
	w.cross(n, jid.JID(user))
}

// leave takes a session away in the way of a server: unavailable before the end.
func (w *world) leave(j jid.JID, p *person) {
	n := w.nodes[p.at]
	if p.available {
		n.report(w, "offline", string(j))
	}
	n.report(w, "session-end", string(j))
	p.at, p.available = -1, false
}

// live lets something happen to somebody.
func (w *world) live() {
	all := slices.Sorted(maps.Keys(w.people))
	j := all[w.rng.IntN(len(all))]
	p := w.people[j]
	if p.at < 0 {
		p.at = w.rng.IntN(len(w.nodes))
		w.nodes[p.at].report(w, "session-start", string(j))
		return
	}
	n := w.nodes[p.at]
	switch w.rng.IntN(6) {
	case 0, 1:
		name := "online"
		if p.available {
			name = "presence"
		}
		p.available = true
		n.report(w, name, string(j))
	case 2:
		if p.available {
			p.available = false
			n.report(w, "offline", string(j))
		}
	case 3:
		n.report(w, "hibernate", string(j))
		n.report(w, "resumed", string(j))
	case 4:
		w.leave(j, p)
	case 5: // replaced by a session at any node, where it is bound before the old one ends or after
		next := w.nodes[w.rng.IntN(len(w.nodes))]
		late := w.rng.IntN(2) == 0
		if late {
			next.report(w, "session-start", string(j))
		}
		w.leave(j, p)
		if !late {
			next.report(w, "session-start", string(j))
		}
		p.at = next.index
	}
}

// snapshot is the answer to a request of ours.
func (w *world) snapshot(n *node) {
	n.snapshots++
	id := fmt.Sprint("s", n.snapshots)
	n.report(w, "snapshot-start", id)
	for _, j := range slices.Sorted(maps.Keys(w.people)) {
		if p := w.people[j]; p.at == n.index {
			name := "bound"
			if p.available {
				name = "snapshot"
			}
			n.report(w, name, string(j))
		}
	}
	n.report(w, "snapshot-end", id)
}

// deliver hands over the next fact of a node.
func (w *world) deliver(n *node) {
	if !n.resumed {
		n.resumed = true
		w.note("resume %d", n.index)
		w.tr.Resume(n.module.source, true)
		if n.told {
			w.snapshot(n)
		}
		return
	}
	if len(n.queue) == 0 {
		return
	}
	s := n.queue[0]
	n.queue = n.queue[1:]
	n.done, n.here = append(n.done, s), n.here+1
	w.note("deliver %d: fact %d %s", n.index, s.Report.Kind, s.From)
	w.translate(n, s, false)
	if s.Report.Kind == stanza.SnapshotEnd && s.Report.ID == fmt.Sprint("s", n.snapshots) {
		n.whole, n.told, n.done, n.here = true, false, nil, 0
	}
}

// whole reports whether this process knows all sessions of all nodes.
func (w *world) whole() bool {
	return !slices.ContainsFunc(w.nodes, func(n *node) bool { return !n.whole })
}

func (w *world) translate(n *node, s trust.Fact, again bool) {
	s.Received = start.Add(w.now())
	for _, e := range w.tr.Translate(&s, nil) {
		w.note("event %s", show(&e))
		if again && !w.ids[e.ID] {
			w.fail("sent again, another event: %s", show(&e))
		}
		if w.ids[e.ID] {
			continue // what a consumer does with an id that it knows
		}
		w.ids[e.ID] = true
		// A process that has just started does not know who is at which node, and takes
		// a session that has moved for two; a loss can hide that somebody has come.
		switch was, exact := w.view[e.From], w.whole() && !w.doubt[e.From] && !w.hazy[e.From]; {
		case exact && was && e.Online:
			w.fail("a second online: %s", show(&e))
		case exact && !was && !e.Online:
			w.fail("a second offline: %s", show(&e))
		}
		w.view[e.From] = e.Online
		delete(w.doubt, e.From)
	}
}

// lose takes facts out of the front of a node's queue, which we are told.
func (w *world) lose(n *node, k int) {
	w.note("lose %d of %d", k, n.index)
	w.counts["lost"] += k
	n.queue = n.queue[k:]
	if n.told {
		// Who has gone unheard only the process before this one knew.
		for j := range w.people {
			w.doubt[j] = true
		}
	}
	n.told, n.whole, n.done, n.here = false, false, nil, 0
	n.resumed = true
	w.tr.Resume(n.module.source, false)
	w.snapshot(n)
}

// crash ends a node with all its sessions and without a word.
func (w *world) crash(n *node) {
	for _, p := range w.people {
		if p.at == n.index {
			p.at, p.available = -1, false
		}
	}
	w.note("crash %d", n.index)
	n.module = &module{source: n.module.source, epoch: n.module.epoch + "x"}
	w.lose(n, len(n.queue))
}

// restart ends our process, which had committed all but a few facts of each node.
func (w *world) restart() {
	if !w.whole() {
		return // what a loss has changed would be lost with the table
	}
	w.note("restart")
	w.start()
	for _, n := range w.nodes {
		k := w.rng.IntN(min(len(n.done), 5) + 1)
		n.queue = slices.Concat(n.done[len(n.done)-k:], n.queue)
		n.done = n.done[:len(n.done)-k]
		for _, s := range n.queue[:k] {
			n.again[s.From] = true
		}
	}
	for _, n := range w.nodes {
		for _, s := range n.queue {
			w.cross(n, s.From)
		}
	}
}

// cross notes that a node has something to say of somebody of whom another one says
// something for the second time: it may come in another order than at first, and a
// part of that the consumer has seen.
func (w *world) cross(n *node, j jid.JID) {
	for _, other := range w.nodes {
		if other != n && other.again[j] {
			w.hazy[j] = true
		}
	}
}

// refuse has the outbox refuse the latest facts of a node, which come again.
func (w *world) refuse(n *node) {
	k := w.rng.IntN(min(n.here, 8) + 1)
	w.note("refuse %d of %d", k, n.index)
	w.tr.Resume(n.module.source, true)
	for _, s := range n.done[len(n.done)-k:] {
		w.translate(n, s, true)
	}
}

func (w *world) step() {
	w.clock++
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	switch r := w.rng.IntN(200); {
	case r < 70:
		w.live()
	case r < 180:
		if w.linked {
			w.deliver(n)
		}
	case r < 184:
		if w.linked && len(n.queue) > 0 {
			w.lose(n, 1+w.rng.IntN(len(n.queue)))
		}
	case r < 185:
		if w.linked {
			w.crash(n)
		}
	case r < 188:
		if w.linked && n.resumed {
			w.refuse(n)
		}
	case r < 190:
		if w.linked && n.resumed {
			w.snapshot(n)
		}
	case r < 192:
		w.restart()
		w.linked = true
	default:
		w.linked = !w.linked
		if w.note("link %t", w.linked); w.linked {
			w.tr.Gap()
			for _, n := range w.nodes {
				n.resumed = false
			}
		}
	}
}

// rest delivers all there is and holds table and consumer against the truth.
func (w *world) rest() {
	if !w.linked {
		w.linked = true
		w.tr.Gap()
		for _, n := range w.nodes {
			n.resumed = false
		}
	}
	for _, n := range w.nodes {
		for !n.resumed || len(n.queue) > 0 {
			w.deliver(n)
		}
	}
	w.note("rest")
	defer func() {
		maps.Copy(w.doubt, w.hazy)
		clear(w.hazy)
		for _, n := range w.nodes {
			clear(n.again)
		}
	}()
	bound, available := 0, 0
	users := map[jid.JID]int{}
	for j, p := range w.people {
		a := w.tr.hosts.resolve(j)
		u := w.tr.sessions.users[a.bare]
		i := u.find(a.resource())
		if (i >= 0) != (p.at >= 0) || w.tr.sessions.online(&a) != p.available {
			w.fail("%s is in the table: %t, online: %t; the truth is %+v", j, i >= 0, w.tr.sessions.online(&a), *p)
		}
		if i >= 0 && w.tr.sessions.sources[u.sessions[i].source].name != w.nodes[p.at].module.source {
			w.fail("%s is at another node than %d", j, p.at)
		}
		if w.view[j] != p.available && !w.doubt[j] && !w.hazy[j] {
			w.fail("a consumer believes that %s is online: %t", j, w.view[j])
		}
		if p.at >= 0 {
			bound++
			users[j.Bare()]++
		}
		if p.available {
			available++
		}
	}
	if s := w.tr.Stats(); s.Sessions != bound || s.Resources != available || s.Users != len(users) {
		w.fail("%d sessions, %d resources, %d users counted; there are %d, %d, %d", s.Sessions, s.Resources, s.Users, bound, available, len(users))
	}
	for _, who := range []jid.JID{"alice@localhost", "bob@localhost", "carol@localhost"} {
		to := w.tr.hosts.resolve(who)
		if got, truth := w.tr.absent(&to), users[who] == 0; got != truth {
			w.fail("%s is absent: %t", who, got)
		}
	}
	for i, src := range w.tr.sessions.sources {
		n := 0
		for _, u := range w.tr.sessions.users {
			for _, s := range u.sessions {
				if int(s.source) == i {
					n++
				}
			}
		}
		if src.sessions != n {
			w.fail("source %d counts %d sessions and has %d", i, src.sessions, n)
		}
	}
}

// TestTruth lets people come and go, links break, facts get lost and processes
// start anew, in any order: after a finished snapshot the table is the truth, whoever
// follows the events knows it, every online is followed by one offline, and what
// comes again makes no event again.
func TestTruth(t *testing.T) {
	const seeds = 40
	counts := map[string]int{}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for range 60 {
				for range 40 {
					w.step()
				}
				w.rest()
			}
			for what, n := range w.counts {
				counts[what] += n
			}
		})
	}
	for _, what := range []string{"report", "deliver", "event", "lose", "crash", "restart", "refuse", "link", "rest"} {
		if counts[what] < seeds {
			t.Errorf("%s: only %d times", what, counts[what])
		}
	}
	t.Logf("%v", counts)
}
