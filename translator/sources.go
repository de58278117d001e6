package translator

import (
	"strings"
	"time"
)

// maxSources bounds the sources that are remembered. They have stable names, one
// for each node, so only a server that names itself anew at every start comes near.
const maxSources = 1024

// lesser is the index of the source that stands for all feeds that number nothing.
const lesser = 0

// source is where sessions are heard of: all lesser feeds together, or one source
// of the event-feed.
//
// It tells its fresh sessions from those of before a gap. Each gap begins a new
// generation, and a session belongs to the one that it was last confirmed in: a gap
// marks all sessions at once without touching any.
type source struct {
	name       string
	sessions   int // in the table
	generation uint32
	// confirmed says that the generation has a session; a gap that follows a gap
	// begins none.
	confirmed bool
	// gaps are the times at which the latest generations ended; older generations
	// have no sessions left. The first expired of them are being cleared.
	gaps    []time.Time
	expired int

	// What follows is of the event-feed.

	heard time.Time // when it last said anything
	// away is since when the link has been up anew without a word of the source, zero
	// if there was one. It is over, for a source whose sessions have all been given up.
	away    time.Time
	leaving bool // a sweep is giving them up
	over    bool
	anew    bool // nothing is known of it, as of one that was never heard
	// whole says that all its sessions are known: a snapshot has ended, and nothing has
	// been lost since. Before that, told says that nothing has been lost since the
	// last process of ours, which has told of all sessions that are new to this one.
	whole, told bool
	// epoch and last are the place in its sequence that this process has come to.
	epoch string
	last  uint64
	// snapshot is the id of the latest one, which is open until its end comes. Those
	// that began before barred, when something was lost, do not count.
	snapshot string
	open     bool
	barred   uint64
	tellings []telling // by seq
}

// named returns the source of that name, a new one if there is none.
// It is told of a source by its events as well as by Resume, and trusts those that
// come without a Resume as little as after a loss.
func (t *sessions) named(name string, at time.Time) (uint16, *source) {
	index, ok := t.byName[name]
	if !ok {
		index = t.newSource(strings.Clone(name))
	}
	src := t.sources[index]
	src.heard = at
	if src.over || !src.away.IsZero() {
		t.resume(src, false, at)
	}
	return index, src
}

func (t *sessions) newSource(name string) uint16 {
	index := uint16(len(t.sources))
	if len(t.sources) > maxSources {
		// The one that has been silent for longest gives way, with its sessions.
		index = 1
		for i := range t.sources[1:] {
			if t.sources[i+1].heard.Before(t.sources[index].heard) {
				index = uint16(i + 1)
			}
		}
		t.ghosts += t.drop(func(_ string, s *session) bool { return s.source == index }, nil)
		delete(t.byName, t.sources[index].name)
		t.sources[index] = &source{}
	} else {
		t.sources = append(t.sources, &source{})
	}
	t.sources[index].name = name
	t.byName[name] = index
	t.settle()
	return index
}

// Resume says that a source of the event-feed goes on: its module has introduced
// itself and been answered, or events are known to be lost. With complete set,
// nothing was missed since what was last handed to Translate, or by a process before
// this one to its outbox: what the table says holds, and the sessions that
// this process is yet to hear of have been told of. Otherwise all that the table says
// about sessions of that source is stale until the source confirms it or a snapshot
// ends without a word of it, which makes offline events marked reconciled.
//
// What a process has found out by a snapshot is lost if it ends before that is in the
// outbox, as its table is. So Complete is kept with each position of the source, and the
// next process is told complete only if it was set there.
//
// A snapshot that was under way goes on if nothing was missed, else it is abandoned
// and its end means nothing.
//
// Resume belongs to the goroutine that calls Translate, and comes in the order of
// the stanzas.
func (t *Translator) Resume(name string, complete bool) {
	at := t.now()
	s := t.sessions
	index, ok := s.byName[name]
	if !ok {
		index = s.newSource(strings.Clone(name))
	}
	if src := s.sources[index]; !ok || src.anew {
		src.told, src.anew = complete, false
	}
	s.sources[index].heard = at
	s.resume(s.sources[index], complete, at)
	t.noteTable()
}

// Complete reports whether everything that a source of the event-feed had to report about
// its sessions has been translated, by this process or by one before it: a snapshot has
// ended, and nothing was missed since. It belongs to the goroutine that calls Translate.
func (t *Translator) Complete(source string) bool {
	index, ok := t.sessions.byName[source]
	return ok && (t.sessions.sources[index].whole || t.sessions.sources[index].told)
}

// Forget drops all that is known of a source of the event-feed, without events, before
// Resume: another process has heard it since, and has told what became of its
// sessions. Forget belongs to the goroutine that calls Translate.
func (t *Translator) Forget(name string) {
	s := t.sessions
	index, ok := s.byName[name]
	if !ok {
		return
	}
	s.drop(func(_ string, c *session) bool { return c.source == index }, nil)
	kept := s.sources[index].name
	*s.sources[index] = source{name: kept, anew: true, heard: t.now()}
	s.settle()
	t.noteTable()
}

func (t *sessions) resume(src *source, complete bool, at time.Time) {
	if src.over {
		complete = false // the table has forgotten its sessions
	}
	src.away, src.leaving, src.over = time.Time{}, false, false
	if !complete {
		src.told, src.whole = false, false
		src.open, src.barred = false, src.last
		src.gap(at)
	}
	t.settle()
}

// settle finds out what the states of all sources make of the table.
func (t *sessions) settle() {
	known, missing := false, false
	t.oldest = time.Time{}
	older := func(at time.Time) {
		if t.oldest.IsZero() || at.Before(t.oldest) {
			t.oldest = at
		}
	}
	for i, src := range t.sources {
		if i != lesser && !src.over {
			ok := src.whole && src.away.IsZero()
			known, missing = known || ok, missing || !ok
		}
		if len(src.gaps) > 0 {
			older(src.gaps[0])
		}
		if !src.away.IsZero() && !src.over {
			older(src.away)
		}
	}
	t.whole = known && !missing
}

// position takes note of an event's place in the sequence, and reports whether the
// source has sent it before.
func (src *source) position(epoch string, seq uint64) (repeated bool) {
	if epoch != src.epoch {
		src.epoch, src.last = strings.Clone(epoch), 0
		src.snapshot, src.open, src.barred, src.tellings = "", false, 0, nil
	}
	if seq <= src.last {
		return true
	}
	src.last = seq
	return false
}
