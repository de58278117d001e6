package journal

import (
	"eventpusher/backends/push/decide"
)

// Outcome is what became of a notification, for one service, or why there was none.
type Outcome string

// The outcomes beside the reasons of package decide.
const (
	Pushed     Outcome = "pushed"
	NotEnabled Outcome = "not_enabled"
	Duplicate  Outcome = "duplicate"
	Disabled   Outcome = "disabled" // the device is gone, the registration removed
	Refused    Outcome = "refused"  // by an error that a repetition does not change
	Incomplete Outcome = "incomplete"
	TimedOut   Outcome = "timeout"
	Failed     Outcome = "failed"
	Withdrawn  Outcome = "withdrawn" // the registration was removed meanwhile

	Queued    Outcome = "queued"       // kept as an event of its own
	Coalesced Outcome = "coalesced"    // a newer one has taken its place
	NoCall    Outcome = "no_call"      // of a device that gets nothing but calls
	Limited   Outcome = "rate_limited" // waits, since the device had too many
	Waiting   Outcome = "waiting"      // waits for its provider, or a push service
	Gone      Outcome = "device_gone"  // the device had been removed
	Dead      Outcome = "device_dead"  // its provider said so, and it was removed

	// A publish for a device of ours that is not taken.
	PublishForbidden Outcome = "publish_forbidden"    // not by this server, or with this secret
	PublishUnknown   Outcome = "publish_unknown_node" // there is no such device

	Withheld  Outcome = "when"        // by the operator's condition
	Undecided Outcome = "when_failed" // by its failure

	Enabled        Outcome = "registered"
	ByUser         Outcome = "unregistered"
	ByOperator     Outcome = "removed_by_operator"
	TooMany        Outcome = "too_many_registrations"
	AccountRemoved Outcome = "account_removed"
)

// meanings say in a few words what each outcome is.
var meanings = map[Outcome]string{
	Pushed:     "the service has taken it",
	NotEnabled: "nothing is registered for the user, or nothing by the session concerned",
	Duplicate:  "the service knows of the message already",
	Disabled:   "the service said that the device is no more; the registration was removed",
	Refused:    "the service refuses it, and would again",
	Incomplete: "the registration lacks what MongoosePush needs (device_id, service)",
	TimedOut:   "the service did not answer; it is tried again",
	Failed:     "the service could not take it; it is tried again",
	Withdrawn:  "the registration was removed before it could be sent",

	Queued:    "it waits for its turn at the registration",
	Coalesced: "newer ones for the registration have taken its place",
	NoCall:    "the device's topic (.voip) is for calls alone, and this is none",
	Limited:   "the device had too many lately; it waits",
	Waiting:   "it waits for its provider or push service, which is slow or fails",
	Gone:      "the device that it was for is not registered here any more",
	Dead:      "the provider said that the device is no more; it was removed here",

	PublishForbidden: "a server has published with a wrong secret or none, and was answered forbidden: the registration there should be renewed",
	PublishUnknown:   "a server has published for a device that is not registered here, and was answered so",

	Withheld:  "the condition of the configuration (when) is not true of it",
	Undecided: "the condition of the configuration (when) failed; it is a dead letter",

	Enabled:        "a registration was stored",
	ByUser:         "the user has taken registrations back",
	ByOperator:     "registrations were removed by command",
	AccountRemoved: "the account was removed, and with it what was registered for it until then",
	TooMany:        "the user has as many registrations as are allowed",

	Outcome(decide.NotMessage): "no message that is routed to a user",
	Outcome(decide.WrongType):  "a message of another type than chat and groupchat",
	Outcome(decide.Online):     "the user has a session",
	Outcome(decide.Unclear):    "the feed does not know for now whether the user has a session",
	Outcome(decide.CannotTell): "the feed of the host cannot tell who is offline; only event-feed can",
	Outcome(decide.Unacked):    "a session has not acknowledged it, and the plugin waits for its end",
	Outcome(decide.NoBody):     "it has no text: a chat state, receipt, marker or subject",
	Outcome(decide.NoStore):    "its sender asks that it be not stored (XEP-0334)",
	Outcome(decide.OwnMessage): "the user has written it",
	Outcome(decide.NotOurs):    "the recipient is no user of a served host",
	Outcome(decide.Expired):    "it had waited for longer than max_age",

	Outcome(decide.RuleSkip):     "a rule of the configuration (push.rules) skips it",
	Outcome(decide.NoRule):       "no rule of the configuration (push.rules) is about it",
	Outcome(decide.RuleOfCall):   "the rule of the configuration (push.rules) is about calls, and this is none",
	Outcome(decide.Muted):        "the user has muted the conversation, at this registration",
	Outcome(decide.RoomUnwanted): "the user wants to be notified of other rooms only, at this registration",
	Outcome(decide.Unknown):      "the sender is no contact of the user, who wants to be notified of contacts only, at this registration",
	Outcome(decide.NotMentioned): "the user wants mentions only from the room, and this is none",
}

// settled reports whether the outcome is the last for its event and registration: what is
// tried again is not.
func (o Outcome) settled() bool {
	switch o {
	case TimedOut, Failed, Limited, Waiting:
		return false
	}
	return true
}

// Meaning says in a few words what an outcome is; empty for one that is unknown.
func Meaning(of string) string { return meanings[Outcome(of)] }
