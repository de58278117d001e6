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

// explanations are of the messages of the compiler that an operator will meet. say gets
// the pattern's groups, as regexp.FindStringSubmatch returns them. The first that matches
// counts; those that are about the whole expression have no column.
var explanations = []struct {
	pattern *regexp.Regexp
	whole   bool
	say     func(m []string) (text, remedy string)
}{
	{regexp.MustCompile(`^unknown name (\S+)$`), false, unknownName},
	{regexp.MustCompile(`^type (\S+) has no (?:field|method) (\S+)$`), false, unknownField},
	{regexp.MustCompile(`^expected bool, but got (.+)$`), true, func(m []string) (text, remedy string) {
		return "gives " + typeName(m[1]) + " instead of true or false", `write a condition, as in event.kind == "chat"`
	}},
	{regexp.MustCompile(`^invalid operation: (\S+) \(mismatched types? (\S+)(?: and (\S+))?\)$`), false, func(m []string) (text, remedy string) {
		text = m[1] + " cannot be used with " + typeName(m[2])
		if m[3] != "" {
			text += " and " + typeName(m[3])
		}
		return text, "compare and combine values of one type; string(), int() and float() convert"
	}},
	{regexp.MustCompile(`^cannot use (\S+) as argument \(type (\S+)\) to call (.+)$`), false, func(m []string) (text, remedy string) {
		function := strings.TrimSuffix(strings.TrimSpace(m[3]), " operator")
		return fmt.Sprintf("%s needs %s, not %s", function, typeName(m[2]), typeName(m[1])), "string(), int() and float() convert"
	}},
	{regexp.MustCompile(`maximum allowed nodes`), true, func([]string) (text, remedy string) {
		return fmt.Sprintf("has more than %d parts", maxNodes), "split the filter into several"
	}},
	{regexp.MustCompile(`^unexpected token (\w+)\("(.+)"\)$`), false, unexpectedToken},
	{regexp.MustCompile(`EOF`), false, func([]string) (text, remedy string) { return "ends too early", "complete the expression" }},
}

// explain reduces an error of the compiler to what an operator understands.
func explain(err error) *compileError {
	message, column := err.Error(), 0
	var at *file.Error
	if errors.As(err, &at) {
		message, column = at.Message, at.From+1
	}
	for _, e := range explanations {
		if m := e.pattern.FindStringSubmatch(message); m != nil {
			if e.whole {
				column = 0
			}
			text, remedy := e.say(m)
			return &compileError{text, remedy, column}
		}
	}
	text := strings.NewReplacer("filter.eventFields", "event", "filter.environment", "the environment").Replace(message)
	return &compileError{text, correct(), column}
}

func correct() string { return "correct the expression; " + fieldsRemedy() }

func unknownName(m []string) (text, remedy string) {
	near := nearestField("event." + m[1])
	if near == "" {
		near = nearestField(m[1])
	}
	return "unknown name " + m[1], suggest(near, "texts stand in quotes; ")
}

func unknownField(m []string) (text, remedy string) {
	if owner := typeName(m[1]); owner != "event" {
		return owner + " has no field " + m[2], fieldsRemedy()
	}
	return "unknown field event." + m[2], suggest(nearestField("event."+m[2]), "")
}

// suggest names a field that may be meant, or else begins with other words.
func suggest(near, otherwise string) string {
	if near != "" {
		return fmt.Sprintf("did you mean %s? %s", near, fieldsRemedy())
	}
	return otherwise + fieldsRemedy()
}

func unexpectedToken(m []string) (text, remedy string) {
	text, remedy = m[2]+" is not expected here", correct()
	switch near := nearest(m[2], operators, ""); {
	case m[2] == "=":
		remedy = "write == to compare"
	case m[1] == "Identifier" && near != "":
		remedy = "did you mean " + near + "?"
	}
	return text, remedy
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
