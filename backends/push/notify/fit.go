package notify

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"

	"eventpusher/backends"
)

// ellipsis ends a text that was cut.
const ellipsis = "…"

// Fit encodes n in at most limit bytes. encode must grow with each text, and depend on
// nothing else. The body is cut, and where that is not enough the title, between
// characters and with an ellipsis. What no cutting makes small enough is refused with
// backends.ErrTooLarge, as permanent.
func Fit(n Notification, limit int, encode func(*Notification) ([]byte, error)) ([]byte, error) {
	encoded, err := encode(&n)
	if err != nil || len(encoded) <= limit {
		return encoded, err
	}
	size := len(encoded)
	for _, text := range [...]*string{&n.Body, &n.Title} {
		encoded, err := shorten(text, limit, func() ([]byte, error) { return encode(&n) })
		if err != nil || encoded != nil {
			return encoded, err
		}
	}
	return nil, backends.Permanent(fmt.Errorf("%d bytes, %d are allowed: %w", size, limit, backends.ErrTooLarge))
}

// shorten leaves as much of text as encodes in limit bytes. When not even an empty
// text does, it is empty and the result nil.
func shorten(text *string, limit int, encode func() ([]byte, error)) ([]byte, error) {
	whole := *text
	var failed error
	// No encoding is shorter than the text, so longer cuts need not be tried.
	fits := sort.Search(min(len(whole), limit), func(i int) bool {
		*text = Cut(whole, min(len(whole), limit)-i)
		encoded, err := encode()
		if err != nil {
			failed = err
		}
		return len(encoded) <= limit
	})
	if failed != nil {
		return nil, failed
	}
	*text = Cut(whole, min(len(whole), limit)-fits)
	encoded, err := encode()
	if err != nil || len(encoded) <= limit {
		return encoded, err
	}
	return nil, nil
}

// Cut returns text if it has at most size bytes, else as much of it as leaves room
// for the ellipsis; nothing when only the ellipsis would be left.
func Cut(text string, size int) string {
	if len(text) <= size {
		return text
	}
	size -= len(ellipsis)
	for size > 0 && !utf8.RuneStart(text[size]) {
		size--
	}
	if size <= 0 {
		return ""
	}
	return strings.TrimRight(text[:size], " ") + ellipsis
}
