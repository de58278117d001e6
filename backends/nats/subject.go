package nats

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"eventpusher/backends/form"
	"eventpusher/event"
)

// maxSubject is the longest subject in bytes. With its reply subject a message must fit into
// a server's max_control_line, 4096 bytes, or the server ends the connection.
const maxSubject = 2048

// subject is the template that names the subject of each event.
type subject struct{ line *form.Line }

// newSubject reads a template and tries it on events.
func newSubject(text string, samples []event.Event) (s subject, err error) {
	if s.line, err = form.NewLine(text, token); err != nil {
		return s, err
	}
	for i := range samples {
		if _, err := s.of(&samples[i]); err != nil {
			return s, fmt.Errorf("tried on a made-up event of %s: %w", samples[i].Sort(), err)
		}
	}
	return s, nil
}

// of returns the subject of e.
func (s subject) of(e *event.Event) (string, error) {
	text, err := s.line.Write(e)
	if err != nil {
		return "", err
	}
	return text, validSubject(text)
}

// wildcard returns a subject that takes those of all events: the tokens before the first
// value, and any after them.
func (s subject) wildcard() string {
	before, _, found := strings.Cut(s.line.Source(), "{{")
	if !found {
		return before
	}
	return before[:strings.LastIndexByte(before, '.')+1] + ">"
}

// unsafe are the characters that url.PathEscape leaves and that a token may not have.
var unsafe = strings.NewReplacer(".", "%2E", "$", "%24")

// token makes one token of a value, whatever users write: with percent-encoding (RFC 3986),
// so that different values make different tokens. An empty value is "-".
func token(value string) string {
	switch {
	case value == "":
		return "-"
	case value == "-":
		return "%2D"
	}
	t := unsafe.Replace(url.PathEscape(value))
	if t[0] == '_' { // _INBOX is where answers go
		t = "%5F" + t[1:]
	}
	return t
}

// validSubject says what is wrong with a subject to publish to. The error does not show it.
func validSubject(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > maxSubject:
		return fmt.Errorf("has %d bytes; %d at most", len(s), maxSubject)
	case s[0] == '$' || strings.HasPrefix(s, "_INBOX"):
		return errors.New("begins with $ or _INBOX, which NATS uses itself")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '*' || r == '>' }):
		return errors.New("has a blank, a control character or a wildcard")
	case s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, ".."):
		return errors.New("has an empty token: there is a dot too many")
	}
	return nil
}
