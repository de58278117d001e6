package push

import (
	"sync/atomic"

	"eventpusher/backends/push/decide"
)

// outcome is what became of a notification, for one service, or why there was none.
type outcome string

// The outcomes beside the reasons of package decide.
const (
	pushed     outcome = "pushed"
	notEnabled outcome = "not_enabled"
	duplicate  outcome = "duplicate"
	disabled   outcome = "disabled" // the device is gone, the registration removed
	refused    outcome = "refused"  // by an error that a repetition does not change
	incomplete outcome = "incomplete"
	timedOut   outcome = "timeout"
	failed     outcome = "failed"
	withdrawn  outcome = "withdrawn" // the registration was removed meanwhile

	queued    outcome = "queued"       // kept as an event of its own
	coalesced outcome = "coalesced"    // a newer one has taken its place
	noCall    outcome = "no_call"      // of a device that gets nothing but calls
	limited   outcome = "rate_limited" // waits, since the device had too many
	waiting   outcome = "waiting"      // waits for its provider, or a push service
	gone      outcome = "device_gone"  // the device had been removed
	dead      outcome = "device_dead"  // its provider said so, and it was removed

	// A publish for a device of ours that is not taken.
	publishForbidden outcome = "publish_forbidden"    // not by this server, or with this secret
	publishUnknown   outcome = "publish_unknown_node" // there is no such device

	withheld  outcome = "when"        // by the operator's condition
	undecided outcome = "when_failed" // by its failure

	enabled        outcome = "registered"
	byUser         outcome = "unregistered"
	byOperator     outcome = "removed_by_operator"
	tooMany        outcome = "too_many_registrations"
	accountRemoved outcome = "account_removed"
)

// meanings say in a few words what each outcome is.
var meanings = map[outcome]string{
	pushed:     "the service has taken it",
	notEnabled: "nothing is registered for the user, or nothing by the session concerned",
	duplicate:  "the service knows of the message already",
	disabled:   "the service said that the device is no more; the registration was removed",
	refused:    "the service refuses it, and would again",
	incomplete: "the registration lacks what MongoosePush needs (device_id, service)",
	timedOut:   "the service did not answer; it is tried again",
	failed:     "the service could not take it; it is tried again",
	withdrawn:  "the registration was removed before it could be sent",

	queued:    "it waits for its turn at the registration",
	coalesced: "newer ones for the registration have taken its place",
	noCall:    "the device's topic (.voip) is for calls alone, and this is none",
	limited:   "the device had too many lately; it waits",
	waiting:   "it waits for its provider or push service, which is slow or fails",
	gone:      "the device that it was for is not registered here any more",
	dead:      "the provider said that the device is no more; it was removed here",

	publishForbidden: "a server has published with a wrong secret or none, and was answered forbidden: the registration there should be renewed",
	publishUnknown:   "a server has published for a device that is not registered here, and was answered so",

	withheld:  "the condition of the configuration (when) is not true of it",
	undecided: "the condition of the configuration (when) failed; it is a dead letter",

	enabled:        "a registration was stored",
	byUser:         "the user has taken registrations back",
	byOperator:     "registrations were removed by command",
	accountRemoved: "the account was removed, and with it what was registered for it until then",
	tooMany:        "the user has as many registrations as are allowed",

	outcome(decide.NotMessage): "no message that is routed to a user",
	outcome(decide.WrongType):  "a message of another type than chat and groupchat",
	outcome(decide.Online):     "the user has a session",
	outcome(decide.Unclear):    "the feed does not know for now whether the user has a session",
	outcome(decide.CannotTell): "the feed of the host cannot tell who is offline; only event-feed can",
	outcome(decide.Unacked):    "a session has not acknowledged it, and the plugin waits for its end",
	outcome(decide.NoBody):     "it has no text: a chat state, receipt, marker or subject",
	outcome(decide.NoStore):    "its sender asks that it be not stored (XEP-0334)",
	outcome(decide.OwnMessage): "the user has written it",
	outcome(decide.NotOurs):    "the recipient is no user of a served host",
	outcome(decide.Expired):    "it had waited for longer than max_age",
}

// settled reports whether the outcome is the last for its event and registration: what is
// tried again is not.
func (o outcome) settled() bool {
	switch o {
	case timedOut, failed, limited, waiting:
		return false
	}
	return true
}

// Meaning says in a few words what an outcome is; empty for one that is unknown.
func Meaning(of string) string { return meanings[outcome(of)] }

// tally counts outcomes. It never changes but for the numbers, so it needs no lock.
type tally map[outcome]*atomic.Uint64

func newTally() tally {
	t := make(tally, len(meanings))
	for o := range meanings {
		t[o] = new(atomic.Uint64)
	}
	return t
}

func (t tally) add(o outcome) { t[o].Add(1) }

// counts returns the outcomes that have occurred.
func (t tally) counts() map[string]uint64 {
	m := make(map[string]uint64)
	for o, n := range t {
		if n := n.Load(); n > 0 {
			m[string(o)] = n
		}
	}
	return m
}
