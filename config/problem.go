package config

import (
	"cmp"
	"slices"
	"strings"
)

// Severity tells an error from something an operator should know.
type Severity uint8

// The severities of a Problem.
const (
	Note    Severity = iota // what a value means here
	Warning                 // works, but not as the file seems to say
	Error                   // nothing starts
)

// String returns note, warning or error.
func (s Severity) String() string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	}
	return "note"
}

// Problem is one finding about a configuration: where, what, and what to do.
// No Problem contains the value of a secret.
type Problem struct {
	Severity Severity
	Path     string // key path, e.g. outgoing_pools.http.http_pool.connection.host; empty: the whole file
	Text     string // what is wrong, or what it means
	Remedy   string // what to do; empty for notes
}

// String returns the problem in one line.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Severity.String())
	for _, part := range []string{p.Path, p.Text} {
		if part != "" {
			b.WriteString(": ")
			b.WriteString(part)
		}
	}
	if p.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(p.Remedy)
	}
	return b.String()
}

// findings collects the problems of one file.
type findings struct {
	list    []Problem
	settled map[string]bool // paths that need no second complaint
}

func (f *findings) add(s Severity, path, text, remedy string) {
	f.list = append(f.list, Problem{Severity: s, Path: path, Text: text, Remedy: remedy})
	if s == Error {
		f.settle(path)
	}
}

func (f *findings) errorf(path, text, remedy string) { f.add(Error, path, text, remedy) }
func (f *findings) warn(path, text, remedy string)   { f.add(Warning, path, text, remedy) }
func (f *findings) note(path, text string)           { f.add(Note, path, text, "") }

// settle marks a key as complained about, so that a misspelt or mistyped key is
// not reported as missing as well.
func (f *findings) settle(path string) {
	if f.settled == nil {
		f.settled = make(map[string]bool)
	}
	f.settled[path] = true
}

// require complains about a key that is missing or empty.
func (f *findings) require(path, remedy string, missing bool) {
	if missing && !f.isSettled(path) {
		f.errorf(path, "missing or empty", remedy)
	}
}

// isSettled reports whether there is a complaint about the key or a table that it
// is in.
func (f *findings) isSettled(path string) bool {
	for i, c := range path {
		if c == '.' && f.settled[path[:i]] {
			return true
		}
	}
	return f.settled[path]
}

// sorted returns the problems in the order of Sort, which does not depend on Go's
// maps.
func (f *findings) sorted() []Problem {
	Sort(f.list)
	return f.list
}

// HasError reports whether one of the problems is an error about the section or a
// key in it.
func HasError(problems []Problem, section string) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool {
		rest, in := strings.CutPrefix(p.Path, section)
		return p.Severity == Error && in && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// Sort puts problems into the order in which they are shown: errors first, then by
// path.
func Sort(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(b.Severity, a.Severity),
			strings.Compare(a.Path, b.Path),
			strings.Compare(a.Text, b.Text),
		)
	})
}
