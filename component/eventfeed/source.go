package eventfeed

import (
	"slices"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// The rhythm of what is said to a source.
const (
	ackEvents = 100                    // so many committed events are acknowledged at once
	ackDelay  = 200 * time.Millisecond // fewer after that time
	askPause  = 2 * time.Second        // between two resumes that a failure made necessary
	// maxOpenings is how many resumes of a source wait for the first element with their
	// token.
	maxOpenings = 8
)

// source is what is known of one source: a server process that numbers its events. It
// outlives connections, since what was handed over before one may be committed after.
//
// Sources.mu guards all of it.
type source struct {
	name       string
	heard      time.Time // when anything of it came last
	greeting             // what it said of itself last; host takes what we say
	connection           // what holds for this connection

	// The sequence as far as it was handed over: the epoch and its last number. fresh
	// says that nothing of the epoch was handed over yet, empty that there was nothing
	// when the epoch was taken up.
	inEpoch  string
	received uint64
	fresh    bool
	empty    bool
	// pending is the last event that the sink has accepted, zero if it is kept or given up.
	// before is the one before that.
	pending, before Position
	refused         bool

	committed Position // the last one that is known to be on disk
	acked     uint64   // the last number of inEpoch that the source was told

	unheard      bool // what it told of hosts that were not served then was left out
	untold       bool // the reader has yet to tell the sink news
	news         Continuity
	snapshot     string // id of the one that was asked for and has not ended
	wantSnapshot bool   // one is to be asked for

	judged                                string // epoch whose unknown loss was counted
	holes, lost, unknownLosses, duplicate uint64
}

// connection is what is known of a source on one connection.
type connection struct {
	since time.Time // when it said hello, zero if it has not
	quiet bool      // nothing of it was accepted since the hello
	again int       // how often the hello was repeated since
	spoke bool      // something else of it came, before or after the hello
	// proven: the module itself has said that hello, and its hosts count. Another component
	// of the server can say one, but hears no answer.
	proven bool
	// doubted is since when there is reason to doubt that the module is there: a hello, long
	// silence, or another feed that is heard while this one is not. asked is when it was asked
	// for a snapshot. Both are zero if an element came since.
	doubted, asked time.Time

	// owed: it is to be sent a resume, as soon as nothing is pending and at askAt at the
	// earliest. greeted is the hello that this resume answers, nil if it answers none.
	owed           bool
	greeted        *greeting
	askAt, askedAt time.Time
	// answered: a sequence is open. The module repeats token on its elements, unless that
	// is empty.
	answered bool
	token    string
	openings []opening // resumes whose token was not heard yet
	gap      gap
}

// greeting is a hello.
type greeting struct {
	host  jid.JID // that said it
	epoch string
	hello stanza.Hello
	// continuity is what it means for the sink, told whether the sink has heard so.
	continuity Continuity
	told       bool
}

// opening is a resume, behind which a sequence begins.
type opening struct {
	token string // empty: it opens nothing any more, but its hello may be the module's
	// at is the position that the source was told, zero if it is to begin with its oldest
	// event. kept is what was on disk, zero if nothing was.
	at, kept Position
	greeted  *greeting // that it answers, nil if it answers none
	// rewound: the source was set back to a state before kept.
	rewound bool
}

// place judges an event, or the lost ones, of the numbers from..to.
func (src *source) place(epoch string, from, to uint64, lost bool) verdict {
	switch {
	case !src.answered || epoch != src.inEpoch:
		return unexpected
	case src.refused:
		return turnedAway
	case from > src.received+1:
		return missing
	case to <= src.received && !(lost && src.fresh): // what was lost before the oldest that is kept
		return duplicated
	}
	return accepted
}

// greet takes a hello and reports whether it says nothing new, since modules repeat it
// until they have heard the answer. kept is the position on disk, zero if
// there is none or something is pending.
//
// Of a module that repeats tokens the sequence that is open stays so until the first
// element with the new token: before that, somebody else may have said hello in its name.
func (src *source) greet(f *stanza.Feed, host jid.JID, kept Position, now time.Time) (g *greeting, repeated bool) {
	repeated = src.quiet && !src.since.IsZero() && f.Epoch == src.epoch
	cold := src.inEpoch == ""
	g = &greeting{host: host, epoch: f.Epoch, hello: f.Hello, continuity: src.continuity(f, kept)}
	src.heard = now
	if src.doubted.IsZero() { // anybody can say hello
		src.doubted = now
	}
	src.owed, src.greeted, src.askAt, src.unheard = true, g, time.Time{}, false
	if f.Hello.Token && src.answered {
		src.wantSnapshot = src.wantSnapshot || g.continuity != Complete
		return g, true
	}
	// The sink hears of a module that repeats tokens when its first element proves that
	// it has said hello itself. If nothing was missed, there may be none for long.
	g.told = !f.Hello.Token || g.continuity == Complete
	src.adopt(g)
	if src.again++; !repeated {
		src.since, src.again = now, 0
	}
	src.quiet, src.answered = true, false
	src.gap = gap{}
	src.wantSnapshot = src.wantSnapshot || g.continuity != Complete || cold || src.snapshot != ""
	src.snapshot = ""
	return g, repeated
}

// adopt makes a hello what is known of the source.
func (src *source) adopt(g *greeting) { src.greeting, src.proven = *g, false }

// continuity says what a hello means: whether what follows goes on behind what this
// process, or another one since, has handed over.
func (src *source) continuity(f *stanza.Feed, kept Position) Continuity {
	cold := src.inEpoch == ""
	// Another process has handed over what came before, and reported its sessions.
	whole := kept.Complete && continues(&f.Hello, f.Epoch, kept.Epoch, kept.Seq)
	others := kept.Epoch != "" && (kept.Epoch != src.inEpoch || kept.Seq > src.received ||
		src.refused && src.committed.Epoch != "" && (kept.Epoch != src.committed.Epoch || kept.Seq != src.committed.Seq))
	switch {
	case src.unheard:
		return Missed
	case cold && whole, !cold && !src.refused && !others && continues(&f.Hello, f.Epoch, src.inEpoch, src.received):
		return Complete
	case !cold && others && whole:
		return Overtaken
	}
	return Missed
}

// continues reports whether what follows a hello in that epoch follows the event of
// that place, with nothing missed.
func continues(h *stanza.Hello, epoch, before string, seq uint64) bool {
	if epoch == before {
		return h.First <= seq+1 && seq < h.Next
	}
	return h.First == 1 && follows(h, before, seq)
}

// follows reports whether the epoch of h comes after this one without a loss of what
// was behind seq.
func follows(h *stanza.Hello, epoch string, seq uint64) bool {
	return h.PrevEpoch == epoch && (h.Clean || h.PrevLast > 0 && h.PrevLast <= seq)
}

// open opens the sequence that follows a resume. first is the number of the oldest event
// that can come, epoch where it belongs. It reports whether the source may have had
// events of which nobody will ever know.
func (src *source) open(o *opening, epoch string, first uint64) (unknownLoss bool) {
	src.token = o.token
	goesOn := o.token != "" && src.answered && !src.refused && src.inEpoch == epoch
	hello := stanza.Hello{}
	switch {
	case o.greeted == nil:
		hello = src.hello
		if epoch != src.inEpoch {
			src.untold, src.news = true, Missed
		}
	case o.greeted.epoch == epoch:
		hello = o.greeted.hello
		src.adopt(o.greeted)
		if !goesOn && !o.greeted.told {
			src.untold, src.news = true, o.greeted.continuity
		}
		if o.greeted.continuity == Overtaken {
			src.refused = false // the other one has taken it
		}
	case !goesOn: // not the module's own hello, so nothing is known
		src.untold, src.news, src.wantSnapshot = true, Missed, true
	}
	if goesOn {
		return false
	}
	before := o.kept
	if before.Epoch == "" && !(src.fresh && src.empty) {
		// What was handed over was never kept, or what there was never came.
		before.Epoch = src.inEpoch
	}
	unknownLoss = o.rewound || before.Epoch != "" && before.Epoch != epoch && !follows(&hello, before.Epoch, before.Seq)
	if o.at.Epoch == epoch {
		src.inEpoch, src.received, src.acked, src.fresh = epoch, o.at.Seq, o.at.Seq, false
		src.committed = o.at
	} else {
		src.inEpoch, src.received, src.acked, src.fresh = epoch, first-1, 0, true
		src.empty = hello.First == hello.Next
		src.committed = Position{}
	}
	if src.refused {
		src.untold, src.news, src.wantSnapshot = true, Missed, true
	}
	src.answered, src.refused = true, false
	return unknownLoss
}

// proves finds the resume that an element of this epoch answers by its token, and forgets
// those before it. The module's hello may have been answered by one of those.
func (src *source) proves(token, epoch string) (o opening, ok bool) {
	i := slices.IndexFunc(src.openings, func(o opening) bool { return o.token == token })
	if i < 0 {
		return o, false
	}
	o = src.openings[i]
	for _, before := range slices.Backward(src.openings[:i]) {
		if g := before.greeted; g != nil && g.epoch == epoch && (o.greeted == nil || o.greeted.epoch != epoch) {
			o.greeted = g
		}
	}
	src.openings = slices.Delete(src.openings, 0, i+1)
	return o, true
}

// void makes the resumes that were sent open nothing any more.
func (src *source) void() {
	for i := range src.openings {
		src.openings[i].token = ""
	}
}

// knows reports whether the token is one that was given to the source.
func (src *source) knows(token string) bool {
	return token != "" && (token == src.token || slices.ContainsFunc(src.openings, func(o opening) bool { return o.token == token }))
}

// settle takes note that what was accepted up to at is kept.
func (src *source) settle(at Position) {
	src.committed = at
	for _, p := range [...]*Position{&src.pending, &src.before} {
		if p.Epoch == at.Epoch && p.Seq == at.Seq {
			*p = Position{}
		}
	}
}

// reached moves the sequence on to a number that was accepted.
func (src *source) reached(seq uint64) {
	if src.gap.open && src.greeted == nil && !src.refused {
		src.owed = false // the missing number has come by itself
	}
	src.received, src.fresh, src.quiet = max(src.received, seq), false, false
	src.gap = gap{}
}

// idle reports whether nothing of the source waits to be kept.
func (src *source) idle() bool { return src.pending.Source == "" }

// unacked returns how many committed events it has not been told of.
func (src *source) unacked() uint64 {
	if !src.answered || src.committed.Epoch != src.inEpoch || src.committed.Seq < src.acked {
		return 0
	}
	return src.committed.Seq - src.acked
}

// reachable reports whether the module listens: it was told where to go on.
func (src *source) reachable() bool { return src.answered || len(src.openings) > 0 }

// due reports whether it has to be told something, now or later.
func (src *source) due() bool {
	return src.owed || src.gap.open || src.unacked() > 0 || src.wantSnapshot && src.reachable() || src.unasked()
}
