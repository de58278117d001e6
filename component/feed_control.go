package component

import (
	"crypto/rand"
	"strconv"
	"time"
)

// run tells the sources of one connection what they are to know, until done is closed.
// What is due was put off for a moment, so that one acknowledgement stands for many
// events, or found the writer's queue full; it is never lost, since each says all
// that there is to say.
func (s *sources) run(done <-chan struct{}) {
	for {
		select {
		case <-s.wake:
		case <-done:
			return
		}
		timer := time.NewTimer(ackDelay)
		select {
		case <-timer.C:
		case <-done:
			timer.Stop()
			return
		}
		s.sayAll(time.Now())
	}
}

// nudge makes run look for what is due after ackDelay.
func (s *sources) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sources) sayAll(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.byName {
		if src.gap && !src.owed && now.Sub(src.askedAt) >= gapRetry {
			src.owed = true
		}
		s.say(src, now)
	}
}

// say tells a source what is due: a resume before anything else, then what is kept, then
// that we want to know who is there. s.mu is held.
func (s *sources) say(src *source, now time.Time) {
	if s.out == nil || s.options.Silent {
		return
	}
	if src.owed && src.pending == 0 && !now.Before(src.askAt) {
		s.resume(src, now)
	}
	if n := src.unacked(); n > 0 && s.send(src, "ack", src.inEpoch, src.committed.Seq) {
		src.acked = src.committed.Seq
		s.metrics.feedAcks.Inc()
	}
	if src.wantSnapshot && src.answered && !src.owed && !src.gap {
		id := rand.Text()
		if s.write(src, "<snapshot xmlns='"+nsFeed+"' source='"+escape(src.name)+"' id='"+id+"'/>") {
			src.wantSnapshot, src.snapshot = false, id
			s.metrics.feedSnapshots.Inc()
		}
	}
	if src.due() {
		s.nudge()
	}
}

// resume tells a source behind which of its events it is to go on. s.mu is held, and
// nothing is pending, so what the outbox has is all that it will have.
func (s *sources) resume(src *source, now time.Time) {
	epoch, seq, known := s.options.Committed(src.name)
	at := Position{Source: src.name, Epoch: epoch, Seq: seq}
	// A server that was set back to an older state gives numbers out twice. Told to go
	// on behind one that it does not have, it would not go on at all.
	rewound := known && src.greeting && epoch == src.epoch && seq >= src.hello.Next
	told := at
	if rewound || !known {
		told = Position{}
	}
	if !s.send(src, "resume", told.Epoch, told.Seq) {
		return
	}
	s.metrics.feedResumes.Inc()
	if !known && !(src.fresh && src.empty) { // what was handed over was never kept, or what there was never came
		at.Epoch = src.inEpoch
	}
	if rewound || at.Epoch != "" && at.Epoch != src.epoch && !follows(&src.hello, at.Epoch, at.Seq) {
		s.unknownLoss(src, at)
	}
	src.ask(told, told.Epoch != "", now)
}

// unknownLoss counts, once for each epoch, that a source may have had events that
// nobody will ever know of.
func (s *sources) unknownLoss(src *source, kept Position) {
	if src.judged == src.epoch {
		return
	}
	src.judged = src.epoch
	src.unknownLosses++
	src.wantSnapshot = true
	s.metrics.feedUnknown.Inc()
	s.log.Warn("component: the server came back without the events that it had kept, how many are lost is unknown",
		"source", src.name, "epoch_before", kept.Epoch, "last_kept", kept.Seq, "epoch", src.epoch)
}

// nsFeed is the namespace of version 1 of the protocol.
const nsFeed = "urn:eventpusher:feed:1"

// send sends an element that names a place in the sequence and reports whether it was
// taken.
func (s *sources) send(src *source, element, epoch string, seq uint64) bool {
	place := ""
	if epoch != "" {
		place = " epoch='" + escape(epoch) + "' seq='" + strconv.FormatUint(seq, 10) + "'"
	}
	return s.write(src, "<"+element+" xmlns='"+nsFeed+"' source='"+escape(src.name)+"'"+place+"/>")
}

func (s *sources) write(src *source, element string) bool {
	return s.out.enqueue([]byte("<message from='" + escape(s.name) + "' to='" + escape(string(src.host)) + "'>" + element + "</message>"))
}
