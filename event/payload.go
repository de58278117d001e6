package event

import (
	"math"
	"sort"
	"strconv"
	"unicode/utf8"

	"eventpusher/internal/jid"
)

// AddressForm says how a payload writes JIDs.
type AddressForm uint8

// MongooseIM writes full JIDs to RabbitMQ and bare ones to SNS.
const (
	FullJID AddressForm = iota
	BareJID
)

// payloadKeys are the keys that MongooseIM's payloads use; filters may not
// shadow them unless they say so.
var payloadKeys = map[string]bool{
	"user_id": true, "present": true,
	"from_user_id": true, "to_user_id": true, "message": true,
	"author": true, "server": true, "receiver": true,
}

// ReservedKey reports whether metadata under this key would replace a field of
// the payloads that backends send.
func ReservedKey(key string) bool { return payloadKeys[key] }

// AppendPayload appends MongooseIM's JSON payload of a user status or chat event
// (mod_event_pusher_rabbit.erl, mod_event_pusher_sns.erl) to dst, with the
// metadata merged into the top level; metadata wins where the keys are equal.
// The output is compact UTF-8 without HTML escapes, keys in a fixed order.
func AppendPayload(dst []byte, e *Event, form AddressForm) []byte {
	w := objectWriter{dst: append(dst, '{'), metadata: e.Metadata}
	address := func(j jid.JID) string {
		if form == BareJID {
			j = j.Bare()
		}
		return string(j)
	}
	if e.Kind == UserStatus {
		w.field("user_id", address(e.From))
		w.field("present", e.Online)
	} else {
		w.field("to_user_id", address(e.To))
		w.field("message", e.Body)
		w.field("from_user_id", address(e.From))
	}
	for _, k := range e.Metadata.Keys() {
		w.add(k, e.Metadata[k])
	}
	return append(w.dst, '}')
}

// Keys returns the keys in ascending order, so that output is reproducible.
func (m Metadata) Keys() []string {
	if len(m) == 0 {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Text returns the value under key as plain text, as form fields, SNS message
// attributes and log lines show it: numbers in decimal, booleans as true or false.
func (m Metadata) Text(key string) string {
	switch v := m[key].(type) {
	case string:
		return v
	default:
		return string(appendValue(nil, v))
	}
}

// objectWriter writes the fields of one JSON object; fields that the metadata
// replaces are left out.
type objectWriter struct {
	dst      []byte
	metadata Metadata
	started  bool
}

func (w *objectWriter) field(key string, value any) {
	if _, replaced := w.metadata[key]; !replaced {
		w.add(key, value)
	}
}

func (w *objectWriter) add(key string, value any) {
	if w.started {
		w.dst = append(w.dst, ',')
	}
	w.started = true
	w.dst = append(appendString(w.dst, key), ':')
	w.dst = appendValue(w.dst, value)
}

// appendValue writes a metadata value; a number that JSON cannot hold becomes null.
func appendValue(dst []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return appendString(dst, v)
	case bool:
		return strconv.AppendBool(dst, v)
	case int:
		return strconv.AppendInt(dst, int64(v), 10)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return strconv.AppendFloat(dst, v, 'g', -1, 64)
		}
	}
	return append(dst, "null"...)
}

const hexDigits = "0123456789ABCDEF"

// appendString writes a JSON string (RFC 8259 section 7): only what must be
// escaped is, as MongooseIM's encoder does; invalid UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}
