package event

import (
	"slices"
	"strconv"
	"time"
)

// AppendJSON appends what encoding/json makes of e, in a quarter of its time, and the given
// version as the first field. HTML is not escaped.
func AppendJSON(dst []byte, e *Event, version int) []byte {
	room := 320 + len(e.ID) + 2*len(e.From) + 2*len(e.To) + len(e.Room) + len(e.Body) + len(e.StanzaID) + len(e.Packet)*9/8 + 32*len(e.Metadata)
	w := fieldWriter{append(slices.Grow(dst, room), `{"version":`...)}
	w.dst = strconv.AppendInt(w.dst, int64(version), 10)
	w.text("id", e.ID)
	w.text("kind", e.Kind.String())
	w.text("type", e.Type)
	w.given("direction", e.Direction.String())
	w.text("from", string(e.From))
	w.given("to", string(e.To))
	w.text("user", string(e.User))
	w.given("room", string(e.Room))
	w.given("body", e.Body)
	w.flag("has_body", e.HasBody)
	w.text("class", e.Class.String())
	w.flag("encrypted", e.Encrypted)
	w.flag("fallback", e.Fallback)
	w.given("replaces", e.Replaces)
	w.flag("online", e.Online)
	w.flag("recipient_offline", e.RecipientOffline)
	w.flag("stranger", e.Stranger)
	w.key("session_count")
	w.dst = strconv.AppendInt(w.dst, int64(e.SessionCount), 10)
	w.given("stanza_id", e.StanzaID)
	w.key("time")
	w.dst = append(e.Time.AppendFormat(append(w.dst, '"'), time.RFC3339Nano), '"')
	w.text("host", e.Host)
	w.text("dialect", e.Dialect)
	w.text("packet", e.Packet)
	w.flag("reconciled", e.Reconciled)
	w.flag("unverified", e.Unverified)
	w.flag("replayed", e.Replayed)
	if len(e.Metadata) > 0 {
		w.key("metadata")
		object := objectWriter{dst: append(w.dst, '{')}
		for _, k := range e.Metadata.Keys() {
			object.add(k, e.Metadata[k])
		}
		w.dst = append(object.dst, '}')
	}
	return append(w.dst, '}')
}

// fieldWriter writes the fields of an object behind its first one.
type fieldWriter struct{ dst []byte }

func (w *fieldWriter) key(name string) {
	w.dst = append(append(append(w.dst, `,"`...), name...), `":`...)
}

func (w *fieldWriter) text(name, value string) {
	w.key(name)
	w.dst = appendString(w.dst, value)
}

// given writes a text that is not empty.
func (w *fieldWriter) given(name, value string) {
	if value != "" {
		w.text(name, value)
	}
}

// flag writes what is true.
func (w *fieldWriter) flag(name string, value bool) {
	if value {
		w.key(name)
		w.dst = append(w.dst, "true"...)
	}
}
