package pusher

import "strings"

// maxSaid is how many bytes of a backend's error are logged and kept with an event: a
// receiver can say anything.
const maxSaid = 2 << 10

// saidError is a backend's error with another text: without secrets, and cut.
type saidError struct {
	error
	text string
}

// Error returns the text.
func (e *saidError) Error() string { return e.text }

// Unwrap returns the backend's error.
func (e *saidError) Unwrap() error { return e.error }

// said returns the error as it is logged, shown and kept.
func (d *dispatcher) said(err error) error {
	if err == nil {
		return nil
	}
	whole := err.Error()
	text := d.redact(whole)
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "") + "…"
	}
	if text == whole {
		return err
	}
	return &saidError{err, text}
}
