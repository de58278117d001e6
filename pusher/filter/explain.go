package filter

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/file"
)

// compileError says to an operator what is wrong with an expression.
type compileError struct {
	text   string
	remedy string
	column int // counted from 1; 0: the whole expression
}

func (e *compileError) Error() string {
	if e.column == 0 {
		return e.text
	}
	return fmt.Sprintf("%s (at character %d)", e.text, e.column)
}

func fieldsRemedy() string {
	return "expressions can use " + strings.Join(ExpressionFields(), ", ")
}

func functionsRemedy() string {
	names := slices.Collect(maps.Keys(allowedBuiltins))
	for name := range isMetered {
		if !strings.Contains(name, " ") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return "functions are " + strings.Join(names, ", ") + "; operators include ==, in, matches, contains, startsWith, endsWith, not, and, or, ?:, ??"
}

// Messages of the compiler that an operator will meet, and what they mean.
var (
	unknownName  = regexp.MustCompile(`^unknown name (\S+)$`)
	unknownField = regexp.MustCompile(`^type (\S+) has no (?:field|method) (\S+)$`)
	wrongResult  = regexp.MustCompile(`^expected bool, but got (.+)$`)
	mismatch     = regexp.MustCompile(`^invalid operation: (\S+) \(mismatched types? (\S+)(?: and (\S+))?\)$`)
	unexpected   = regexp.MustCompile(`^unexpected token (\w+)\("(.+)"\)$`)
	wrongArg     = regexp.MustCompile(`^cannot use (\S+) as argument \(type (\S+)\) to call (.+)$`)
)

// explain reduces an error of the compiler to what an operator understands.
func explain(err error) *compileError {
	message, column := err.Error(), 0
	var at *file.Error
	if errors.As(err, &at) {
		message, column = at.Message, at.From+1
	}
	out := &compileError{column: column}
	if m := unknownName.FindStringSubmatch(message); m != nil {
		out.text, out.remedy = fmt.Sprintf("unknown name %s", m[1]), fieldsRemedy()
		if near := nearestField("event." + m[1]); near != "" {
			out.remedy = fmt.Sprintf("did you mean %s? %s", near, out.remedy)
		} else if near := nearestField(m[1]); near != "" {
			out.remedy = fmt.Sprintf("did you mean %s? %s", near, out.remedy)
		} else {
			out.remedy = "texts stand in quotes; " + out.remedy
		}
		return out
	}
	if m := unknownField.FindStringSubmatch(message); m != nil {
		owner := typeName(m[1])
		if owner != "event" {
			out.text, out.remedy = fmt.Sprintf("%s has no field %s", owner, m[2]), fieldsRemedy()
			return out
		}
		out.text, out.remedy = fmt.Sprintf("unknown field event.%s", m[2]), fieldsRemedy()
		if near := nearestField("event." + m[2]); near != "" {
			out.remedy = fmt.Sprintf("did you mean %s? %s", near, out.remedy)
		}
		return out
	}
	if m := wrongResult.FindStringSubmatch(message); m != nil {
		out.text, out.column = "gives "+typeName(m[1])+" instead of true or false", 0
		out.remedy = `write a condition, as in event.kind == "chat"`
		return out
	}
	if m := mismatch.FindStringSubmatch(message); m != nil {
		out.text = fmt.Sprintf("%s cannot be used with %s", m[1], typeName(m[2]))
		if m[3] != "" {
			out.text += " and " + typeName(m[3])
		}
		out.remedy = "compare and combine values of one type; string(), int() and float() convert"
		return out
	}
	if m := wrongArg.FindStringSubmatch(message); m != nil {
		out.text = fmt.Sprintf("%s needs %s, not %s", strings.TrimSuffix(strings.TrimSpace(m[3]), " operator"), typeName(m[2]), typeName(m[1]))
		out.remedy = "string(), int() and float() convert"
		return out
	}
	if strings.Contains(message, "maximum allowed nodes") {
		out.text, out.column = fmt.Sprintf("has more than %d parts", maxNodes), 0
		out.remedy = "split the filter into several"
		return out
	}
	out.text = strings.ReplaceAll(strings.ReplaceAll(message, "filter.eventFields", "event"), "filter.environment", "the environment")
	out.remedy = "correct the expression; " + fieldsRemedy()
	if strings.Contains(message, "EOF") {
		out.text = "ends too early"
		out.remedy = "complete the expression"
	}
	if m := unexpected.FindStringSubmatch(message); m != nil {
		out.text = m[2] + " is not expected here"
		switch near := nearest(m[2], operators, ""); {
		case m[2] == "=":
			out.remedy = "write == to compare"
		case m[1] == "Identifier" && near != "":
			out.remedy = "did you mean " + near + "?"
		}
	}
	return out
}

// operators are those with names.
var operators = []string{"and", "or", "not", "in", "matches", "contains", "startsWith", "endsWith"}

// typeName says what Go calls a type in the words of the documentation.
func typeName(t string) string {
	switch t {
	case "string":
		return "a text"
	case "int", "int64":
		return "a whole number"
	case "float64":
		return "a number"
	case "bool":
		return "true or false"
	case "nil":
		return "nothing"
	case "filter.eventFields":
		return "event"
	case "map[string]interface {}", "map[string]any":
		return "a table"
	case "[]string", "[]int", "[]interface {}", "[]any":
		return "a list"
	}
	return t
}

// nearestField returns the known name that a mistyped one most likely means.
func nearestField(name string) string {
	const prefix = "event."
	if strings.HasPrefix(name, prefix) {
		return nearest(name, ExpressionFields(), prefix)
	}
	return nearest(name, append(ExpressionFields(), "event", "metadata"), "")
}

// nearest returns the one of the known names that a mistyped one most likely means, empty
// if there is none: with at most two changes, and at most half of what stands behind the
// common prefix. Of several it takes the first that begins alike.
func nearest(name string, known []string, prefix string) string {
	least := min(3, (len(name)-len(prefix)+1)/2+1)
	start := name[:min(len(name), len(prefix)+1)]
	best, alike := "", false
	for _, k := range known {
		d, same := editDistance(name, k), strings.HasPrefix(k, start)
		if d < least || d == least && best != "" && same && !alike {
			best, least, alike = k, d, same
		}
	}
	return best
}

// editDistance is Levenshtein's distance in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// runError reduces an error of the machine to one without content: its messages
// can quote the values that it worked on.
func runError(err error) *filterError {
	var known *filterError
	if errors.As(err, &known) {
		return known
	}
	message := err.Error()
	var at *file.Error
	if errors.As(err, &at) {
		message = at.Message
	}
	switch {
	case strings.Contains(message, "memory budget"):
		return &filterError{kind: "too_costly", text: "the expression makes longer lists than filters may"}
	case strings.Contains(message, "out of range"):
		return &filterError{kind: "out_of_range", text: "an index is beyond the end of a list"}
	case strings.Contains(message, "divide by zero"):
		return &filterError{kind: "divide_by_zero", text: "a division by zero"}
	case strings.Contains(message, "interface conversion"), strings.Contains(message, "invalid operation"), strings.Contains(message, "cannot fetch"):
		return &filterError{kind: "value_type", text: "a value is missing or not of the type that an operator needs"}
	}
	return &filterError{kind: "evaluation", text: "the expression cannot be evaluated for this event"}
}
