package filter

import (
	"reflect"
	"time"

	"eventpusher/event"
)

// environment is what expressions see.
type environment struct {
	Event    eventFields    `expr:"event"`
	Metadata map[string]any `expr:"metadata"`
}

// eventFields are the fields of event in expressions.
type eventFields struct {
	Kind             string    `expr:"kind"`
	Type             string    `expr:"type"`
	Direction        string    `expr:"direction"`
	Sort             string    `expr:"sort"`
	From             string    `expr:"from"`
	To               string    `expr:"to"`
	User             string    `expr:"user"`
	Room             string    `expr:"room"`
	Body             string    `expr:"body"`
	Class            string    `expr:"class"`
	Encrypted        bool      `expr:"encrypted"`
	Fallback         bool      `expr:"fallback"`
	Replaces         string    `expr:"replaces"`
	Online           bool      `expr:"online"`
	RecipientOffline bool      `expr:"recipient_offline"`
	Stranger         bool      `expr:"stranger"`
	SessionCount     int       `expr:"session_count"`
	Time             time.Time `expr:"time"`
	Timestamp        int       `expr:"timestamp"`
	StanzaID         string    `expr:"stanza_id"`
	ID               string    `expr:"id"`
	Reconciled       bool      `expr:"reconciled"`
	Unverified       bool      `expr:"unverified"`
	Replayed         bool      `expr:"replayed"`
}

// load fills the environment with e.
func (v *environment) load(e *event.Event) {
	v.Event = eventFields{
		Kind: e.Kind.String(), Type: e.Type, Direction: e.Direction.String(), Sort: e.Sort(),
		From: string(e.From), To: string(e.To), User: string(e.User), Room: string(e.Room),
		Body: e.Body, Class: e.Class.String(), Encrypted: e.Encrypted, Fallback: e.Fallback, Replaces: e.Replaces, Online: e.Online,
		RecipientOffline: e.RecipientOffline, Stranger: e.Stranger, SessionCount: e.SessionCount,
		Time: e.Time.UTC(), Timestamp: int(e.Timestamp()), StanzaID: e.StanzaID, ID: e.ID,
		Reconciled: e.Reconciled, Unverified: e.Unverified, Replayed: e.Replayed,
	}
	v.Metadata = e.Metadata
}

// ExpressionFields returns the names that expressions can use, in the order of
// the documentation.
func ExpressionFields() []string {
	t := reflect.TypeFor[eventFields]()
	names := make([]string, 0, t.NumField()+1)
	for i := range t.NumField() {
		names = append(names, "event."+t.Field(i).Tag.Get("expr"))
	}
	return append(names, "metadata")
}
