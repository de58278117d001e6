package control

import (
	"fmt"
	"net/url"
	"strconv"
	"time"

	"eventpusher/pusher/outbox"
)

// encode writes a filter as the query of a request.
func encode(f outbox.LetterFilter) url.Values {
	q := make(url.Values)
	text := func(key, v string) {
		if v != "" {
			q.Set(key, v)
		}
	}
	number := func(key string, v uint64) {
		if v != 0 {
			q.Set(key, strconv.FormatUint(v, 10))
		}
	}
	moment := func(key string, t time.Time) {
		if !t.IsZero() {
			q.Set(key, t.Format(time.RFC3339Nano))
		}
	}
	number("id", f.ID)
	text("backend", f.Backend)
	text("reason", f.Reason)
	text("event", f.EventID)
	moment("since", f.Since)
	moment("until", f.Until)
	number("after", f.After)
	number("limit", uint64(f.Limit))
	return q
}

// decode reads what encode wrote. A key that it does not know is an error: left
// out, it would select more than was asked for.
func decode(q url.Values) (outbox.LetterFilter, error) {
	var f outbox.LetterFilter
	for key, values := range q {
		var err error
		v := values[0]
		switch key {
		case "id":
			f.ID, err = strconv.ParseUint(v, 10, 64)
		case "backend":
			f.Backend = v
		case "reason":
			f.Reason = v
		case "event":
			f.EventID = v
		case "since":
			f.Since, err = time.Parse(time.RFC3339Nano, v)
		case "until":
			f.Until, err = time.Parse(time.RFC3339Nano, v)
		case "after":
			f.After, err = strconv.ParseUint(v, 10, 64)
		case "limit":
			f.Limit, err = strconv.Atoi(v)
		default:
			err = fmt.Errorf("unknown key")
		}
		if err != nil {
			return f, fmt.Errorf("control: %s: %w", key, err)
		}
	}
	return f, nil
}
