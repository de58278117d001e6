package config

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a string that never shows itself: every way of printing it gives ***.
type Secret string

const hidden = "***"

// String returns ***.
func (Secret) String() string { return hidden }

// GoString returns ***, for %#v.
func (Secret) GoString() string { return hidden }

// MarshalText returns ***, for JSON and TOML.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue returns ***, for log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// Format writes *** for every verb. Without it a verb that does not fit a string,
// such as %d, would print the value inside its complaint.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, hidden) }

// Reveal returns the secret itself, for the one place that sends it.
func (s Secret) Reveal() string { return string(s) }

// Structs with secrets that others point to format themselves: fmt prints a pointer
// whose verb does not fit, as %s of a whole Config, without asking the methods of
// the fields behind it.

// Format writes the fields as %+v does, whatever the verb.
func (t TLS) Format(s fmt.State, _ rune) {
	type plain TLS
	_, _ = fmt.Fprintf(s, "%+v", plain(t))
}

// Format writes the fields as %+v does, whatever the verb.
func (n SNS) Format(s fmt.State, _ rune) {
	type plain SNS
	_, _ = fmt.Fprintf(s, "%+v", plain(n))
}

// Format writes the fields as %+v does, whatever the verb.
func (h HTTP) Format(s fmt.State, _ rune) {
	type plain HTTP
	_, _ = fmt.Fprintf(s, "%+v", plain(h))
}

// Format writes the fields as %+v does, whatever the verb.
func (p RabbitPool) Format(s fmt.State, _ rune) {
	type plain RabbitPool
	_, _ = fmt.Fprintf(s, "%+v", plain(p))
}

// Format writes the fields as %+v does, whatever the verb.
func (p RDBMSPool) Format(s fmt.State, _ rune) {
	type plain RDBMSPool
	_, _ = fmt.Fprintf(s, "%+v", plain(p))
}
