// Package finding is what an examination has found, in the form that doctor prints.
package finding

import "fmt"

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "OK"
	Warn Level = "WARN" // works, or cannot be told, and somebody should look at it
	Fail Level = "FAIL" // does not work before somebody acts
)

// Finding is one line of an examination. It never holds a secret or anything that users
// wrote.
type Finding struct {
	Level   Level  `json:"level"`
	Subject string `json:"subject"` // what was looked at, such as rabbit or example.org
	Text    string `json:"finding"`
	Remedy  string `json:"remedy,omitempty"` // what to do; empty where Text says it or nothing is to be done
}

// String returns the finding in one line.
func (f Finding) String() string {
	s := fmt.Sprintf("%-4s  %-24s  %s", f.Level, f.Subject, f.Text)
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return s
}

// Okf returns a finding of level OK.
func Okf(subject, format string, args ...any) Finding {
	return Finding{Level: OK, Subject: subject, Text: fmt.Sprintf(format, args...)}
}

// Warnf returns a finding of level WARN.
func Warnf(subject, remedy, format string, args ...any) Finding {
	return Finding{Level: Warn, Subject: subject, Remedy: remedy, Text: fmt.Sprintf(format, args...)}
}

// Failf returns a finding of level FAIL.
func Failf(subject, remedy, format string, args ...any) Finding {
	return Finding{Level: Fail, Subject: subject, Remedy: remedy, Text: fmt.Sprintf(format, args...)}
}

// Failed reports whether one of them is a failure.
func Failed(list []Finding) bool {
	for _, f := range list {
		if f.Level == Fail {
			return true
		}
	}
	return false
}
