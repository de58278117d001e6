package translator

import (
	"time"

	"eventpusher/internal/jid"
)

// receivers returns how many sessions ejabberd hands a message of this type to
// (ejabberd_sm:route_message): the one addressed, if it is there; of a bare JID,
// for headlines all of priority 0 and above, for chat and normal all that share
// the highest. A full JID that is gone counts as bare for chat and normal.
func (t *sessions) receivers(to *address, kind string) int {
	if to.session {
		if t.online(to) {
			return 1
		}
		if kind == headline {
			return 0
		}
	}
	u := t.users[to.bare]
	if kind == groupchat || u == nil {
		return 0
	}
	n, highest := 0, int8(0)
	for _, s := range u.sessions {
		switch {
		case s.marks&available == 0:
		case s.priority > highest && kind != headline:
			n, highest = 1, s.priority
		case s.priority >= highest:
			n++
		}
	}
	return n
}

// unknown reports whether there may be other sessions than the k that the table knows to
// get a message.
func (t *sessions) unknown(to *address, k int) bool {
	u := t.users[to.bare]
	return k == 0 || u != nil && len(u.sessions) >= t.limit
}

// justBack reports whether the user became able to receive messages a short
// while before the given time.
func (t *sessions) justBack(bare jid.JID, at time.Time) bool {
	u := t.users[bare]
	const window = uint32(backWindow / time.Second)
	return u != nil && seconds(at)-u.back <= window
}

// seconds is good until 2106, for half the space of a full time.
func seconds(t time.Time) uint32 { return uint32(t.Unix()) }
