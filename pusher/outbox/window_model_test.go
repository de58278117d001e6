package outbox_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// windowModel is a naive engine around a Window: a log, a store of what is parked, and for
// each event whether it has ended. It survives crashes with what was saved.
type windowModel struct {
	t   *testing.T
	rnd *rand.Rand
	w   *outbox.Window
	log []outbox.Admission // by number, from 1

	// What is kept.
	kept    outbox.Cut
	parked  map[outbox.ParkedID]outbox.ParkedEvent
	letters []outbox.DeadLetter
	ended   map[string]bool // delivered, dead or given up, as far as that was saved

	// Of this life.
	next     uint64          // of the log, to be admitted
	over     map[string]bool // what has ended
	settled  int             // by lanes, since the last save
	flight   []*outbox.Item
	cut      *outbox.Cut // being saved
	cutEnded map[string]bool
	cutCount int
	failing  bool // some loads fail
	replays  int
}

func (m *windowModel) limits() outbox.WindowLimits {
	return outbox.WindowLimits{WindowEvents: 12, Redelivery: 6, ParkedEvents: 25, ParkAttempts: 2, ParkAfter: time.Minute}
}

// begin begins a life with what was kept.
func (m *windowModel) begin() {
	m.over, m.settled, m.flight, m.cut = maps.Clone(m.ended), 0, nil, nil
	m.failing = m.rnd.IntN(2) == 0
	m.w = newWindow(outbox.WindowOptions{
		WindowLimits: m.limits(), Progress: m.kept.Progress, Load: m.load,
	})
	m.next = m.kept.Floor
	var list []outbox.Restored
	for _, id := range slices.SortedFunc(maps.Keys(m.parked), func(a, b outbox.ParkedID) int { return slices.Compare(a[:], b[:]) }) {
		p := m.parked[id]
		list = append(list, outbox.Restored{ID: id, Key: []byte(p.Event.Key()), Accepted: p.Accepted, Attempts: p.Attempts, Bytes: 10})
	}
	m.w.Restore(list)
}

// load is the store's answer for a parked event.
func (m *windowModel) load(id outbox.ParkedID) (*event.Event, error) {
	p, there := m.parked[id]
	switch {
	case !there:
		m.t.Fatalf("%v is read, which is not kept", id)
	case m.failing && m.rnd.IntN(10) == 0:
		return nil, fmt.Errorf("the disk fails")
	}
	return p.Event, nil
}

// admit hands the next pack over, as long as there is room.
func (m *windowModel) admit() {
	if m.w.Full() || m.next > uint64(len(m.log)) {
		return
	}
	n := min(uint64(1+m.rnd.IntN(4)), uint64(len(m.log))+1-m.next)
	list := m.log[m.next-1:][:n]
	m.next += n
	m.w.Admit(list, time.Now(), m.next)
}

// take takes, and checks that nothing overtakes anything.
func (m *windowModel) take() {
	t := m.t
	limit, probe := 1+m.rnd.IntN(4), m.rnd.IntN(5) == 0
	items, next, _, urgent := m.w.Take(nil, limit, probe, m.next <= uint64(len(m.log)))
	if len(items) > limit {
		t.Fatalf("%d taken of at most %d", len(items), limit)
	}
	taken := len(items)
	for _, it := range m.w.Load(items) {
		if m.over[it.Event.ID] {
			t.Fatalf("%s is handed out after its end", it.Event.ID)
		}
		for _, other := range m.flight {
			if other.Event.ID == it.Event.ID || other.Key == it.Key {
				t.Fatalf("%s is handed out while %s is under way", it.Event.ID, other.Event.ID)
			}
		}
		if !it.Event.Replayed {
			m.inOrder(it.Event)
		}
		m.flight = append(m.flight, it)
	}
	if budget := m.limits().Redelivery; m.settled+len(m.flight) > budget {
		t.Fatalf("%d settled and %d under way would be repeated after a crash, and %d may be", m.settled, len(m.flight), budget)
	}
	// Whoever finds nothing has to learn when there will be something.
	s := m.w.Stats()
	readable := m.next <= uint64(len(m.log)) && !m.w.Full()
	if taken == 0 && next.IsZero() && !urgent && s.Waiting > 0 && len(m.flight) == 0 && m.settled == 0 && m.cut == nil && !readable {
		t.Fatalf("nothing to take, and no time for the next look: %+v", s)
	}
}

// inOrder checks that everything older of the conversation has ended.
func (m *windowModel) inOrder(e *event.Event) {
	for _, a := range m.log {
		if a.Event.ID == e.ID {
			return
		}
		if a.Event.Key() == e.Key() && !m.over[a.Event.ID] {
			m.t.Fatalf("%s is handed out before %s", e.ID, a.Event.ID)
		}
	}
}

func (m *windowModel) settle() {
	if len(m.flight) == 0 {
		return
	}
	i := m.rnd.IntN(len(m.flight))
	it := m.flight[i]
	m.flight = slices.Delete(m.flight, i, i+1)
	s := outbox.Settlement{
		Item: it, Outcome: outbox.Outcome(m.rnd.IntN(4)), Reason: "permanent", Asked: m.rnd.IntN(3) == 0,
		Delay: time.Duration(m.rnd.IntN(3000)) * time.Millisecond,
	}
	if s.Outcome == outbox.Delivered || s.Outcome == outbox.Dead {
		m.over[it.Event.ID] = true
		m.settled++
	}
	m.w.Settle([]outbox.Settlement{s})
}

// giveUp expects the oldest to go that nobody has, and no others.
func (m *windowModel) giveUp() {
	limit, before := 1+m.rnd.IntN(3), m.next-min(m.next-1, uint64(m.rnd.IntN(6)))
	waiting := m.w.Stats().Waiting
	n := m.w.GiveUp(before, limit)
	if n > limit || m.w.Stats().Waiting != waiting-n {
		m.t.Fatalf("gave up %d of at most %d; %d waited, %d do", n, limit, waiting, m.w.Stats().Waiting)
	}
	c := m.save(true)
	kept := make(map[uint64]bool) // what can still come: unsettled in the log, or parked
	for _, g := range c.Pending {
		kept[g] = true
	}
	for _, a := range m.log[:m.next-1] {
		_, parked := m.parked[outbox.EventID(0, a.Number)]
		if a.Number >= c.Floor && (a.Number >= c.Top || kept[a.Number]) || parked || m.over[a.Event.ID] {
			continue
		}
		if n--; a.Number >= before {
			m.t.Fatalf("%s was given up, and only what comes before %d had to go", a.Event.ID, before)
		}
		m.over[a.Event.ID], m.ended[a.Event.ID] = true, true
	}
	if n != 0 {
		m.t.Fatalf("%d more were said to be given up than are gone", n)
	}
}

// save saves everything now, or begins to: what happens in between is not in it.
func (m *windowModel) save(whole bool) (c outbox.Cut) {
	if m.cut == nil {
		c, changed := m.w.Cut()
		if !changed {
			return m.kept
		}
		m.learn(c.Letters)
		m.cut, m.cutEnded, m.cutCount = &c, maps.Clone(m.over), m.settled
		if !whole {
			return c
		}
	}
	c = *m.cut
	m.keep()
	m.w.Saved(m.cut)
	m.settled -= m.cutCount
	m.cut = nil
	if whole {
		return m.save2()
	}
	return c
}

// save2 saves what has come since the cut that was being saved.
func (m *windowModel) save2() outbox.Cut {
	c, changed := m.w.Cut()
	if !changed {
		return m.kept
	}
	m.learn(c.Letters)
	m.cut, m.cutEnded, m.cutCount = &c, maps.Clone(m.over), m.settled
	m.keep()
	m.w.Saved(m.cut)
	m.settled -= m.cutCount
	m.cut = nil
	return c
}

// learn hears which events have ended without a lane having settled them.
func (m *windowModel) learn(letters []outbox.DeadLetter) {
	for _, d := range letters {
		m.over[d.Event.ID] = true
	}
}

// keep writes the cut as an engine's transaction does.
func (m *windowModel) keep() {
	c := m.cut
	for _, p := range c.Parked {
		m.parked[p.ID] = p
	}
	for _, try := range c.Tries {
		if p, there := m.parked[try.ID]; there {
			p.Attempts = try.Attempts
			m.parked[try.ID] = p
		}
	}
	for _, id := range c.Freed {
		delete(m.parked, id)
	}
	m.letters = append(m.letters, c.Letters...)
	m.kept, m.ended = *c, m.cutEnded
}

// step does something.
func (m *windowModel) step() {
	switch what := m.rnd.IntN(100); {
	case what < 12:
		for range 1 + m.rnd.IntN(3) {
			m.log = append(m.log, admission(uint64(len(m.log)+1), fmt.Sprint("peer", m.rnd.IntN(6))))
		}
	case what < 27:
		m.admit()
	case what < 50:
		m.take()
	case what < 72:
		m.settle()
	case what < 82:
		m.save(false)
	case what < 84:
		if m.cut != nil {
			m.w.Undo(m.cut)
			m.cut = nil
		}
	case what < 90:
		time.Sleep(time.Duration(m.rnd.IntN(8000)) * time.Millisecond)
	case what < 92:
		m.w.RetryNow()
	case what < 94:
		if _, _, err := m.w.Expire(time.Now().Add(-20 * time.Second)); err != nil && !m.failing {
			m.t.Fatal(err)
		}
		m.save(true)
	case what < 95:
		m.giveUp()
	case what < 97 && len(m.letters) > 0:
		d := m.letters[m.rnd.IntN(len(m.letters))]
		m.replays++
		e := *d.Event
		e.ID, e.Replayed = fmt.Sprint("replay ", m.replays), true
		p := outbox.ParkedEvent{ID: outbox.ReplayID(0, uint64(m.replays)), Event: &e, Accepted: time.Now()}
		m.parked[p.ID] = p
		m.w.AddReplayed(&p, 10)
	case what < 98:
		m.crash()
	}
	m.learn(m.w.Letters())
}

// crash forgets what was not saved; a save that is under way may have come through.
func (m *windowModel) crash() {
	if m.cut != nil && m.rnd.IntN(2) == 0 {
		m.keep()
	}
	m.begin()
}

// finish delivers everything that is left, and says how many came.
func (m *windowModel) finish() {
	m.failing = false
	for range 10_000 {
		if s := m.w.Stats(); s.Waiting+s.InFlight == 0 && m.next > uint64(len(m.log)) {
			return
		}
		m.admit()
		m.take()
		for _, it := range m.flight {
			m.over[it.Event.ID] = true
			m.settled++
			m.w.Settle([]outbox.Settlement{{Item: it, Outcome: outbox.Delivered}})
		}
		m.flight = nil
		m.save(true)
		time.Sleep(time.Second)
	}
	m.t.Fatalf("%+v waits for ever", m.w.Stats())
}

// TestWindowActsAsTheModel does anything in any order, crashes now and then, and expects
// that every event ends, in its order, and that nothing that was saved is repeated.
func TestWindowActsAsTheModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &windowModel{
					t: t, rnd: rand.New(rand.NewPCG(seed, 7)), parked: make(map[outbox.ParkedID]outbox.ParkedEvent), ended: make(map[string]bool),
					kept: outbox.Cut{Progress: outbox.Progress{Floor: 1, Top: 1}},
				}
				m.begin()
				for range 1500 {
					m.step()
				}
				m.finish()
				for _, a := range m.log {
					if !m.over[a.Event.ID] {
						t.Errorf("%s was lost", a.Event.ID)
					}
				}
				for n := range m.replays {
					if id := fmt.Sprint("replay ", n+1); !m.over[id] {
						t.Errorf("%s was lost", id)
					}
				}
				dead := make(map[string]int)
				for _, d := range m.letters {
					if dead[d.Event.ID]++; !m.over[d.Event.ID] || dead[d.Event.ID] > 1 {
						t.Errorf("%d dead letters of %s", dead[d.Event.ID], d.Event.ID)
					}
				}
				if len(m.parked) > 0 || m.kept.Floor != uint64(len(m.log))+1 {
					t.Errorf("in the end %d are parked, and the cursor is %d of %d", len(m.parked), m.kept.Floor, len(m.log))
				}
			})
		})
	}
}
