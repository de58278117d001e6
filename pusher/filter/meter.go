package filter

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm/runtime"
)

// Names that the guard writes into the tree. They hold a space, so that no
// expression can name them.
const (
	opMatches = "matches operator"
	opConcat  = "+ operator"
	opAdd     = "+ operator on unknown"
	opPass    = "predicate pass"
)

const (
	maxWork   = 16 << 20 // bytes of text that one evaluation may work on
	passCost  = 1024     // what one pass of all, any, none, one, count costs beside the body
	maxPieces = 1024     // most pieces that split may make
)

// meter counts the work of one evaluation in bytes of text. A body of an
// attacker's choice can make an honest expression fail, but never slow.
type meter struct {
	left int
	body int
}

func (m *meter) reset(body int) { m.left, m.body = maxWork, body }

// spend takes n bytes of work from what is left.
func (m *meter) spend(n int) error {
	m.left -= n
	if m.left < 0 {
		return &filterError{kind: "too_costly", text: "the expression has more to do with this event than filters may"}
	}
	return nil
}

// isMetered names every function that functions defines.
var isMetered = map[string]bool{
	opMatches: true, opConcat: true, opAdd: true, opPass: true,
	"lower": true, "upper": true, "trim": true, "trimPrefix": true, "trimSuffix": true,
	"split": true, "replace": true, "string": true, "int": true, "float": true,
}

// functions returns the metered operations and text functions. Those that the
// language has itself behave as there, with bounds and without content in errors.
func (m *meter) functions() []expr.Option {
	return []expr.Option{
		expr.Function(opMatches, m.matches, new(func(string, *pattern) bool)),
		expr.Function(opConcat, m.add, new(func(string, string) string)),
		expr.Function(opAdd, m.add, new(func(any, any) any)),
		expr.Function(opPass, m.pass, new(func(bool) bool)),
		expr.Function("lower", m.text(strings.ToLower), new(func(string) string)),
		expr.Function("upper", m.text(strings.ToUpper), new(func(string) string)),
		expr.Function("trim", m.text2(strings.TrimSpace, strings.Trim), new(func(string) string), new(func(string, string) string)),
		expr.Function("trimPrefix", m.text2(nil, strings.TrimPrefix), new(func(string, string) string)),
		expr.Function("trimSuffix", m.text2(nil, strings.TrimSuffix), new(func(string, string) string)),
		expr.Function("split", m.split, new(func(string, string) []string)),
		expr.Function("replace", m.replace, new(func(string, string, string) string)),
		expr.Function("string", m.toString, new(func(string) string), new(func(bool) string), new(func(int) string),
			new(func(int64) string), new(func(float64) string), new(func(time.Duration) string), new(func(time.Time) string),
			new(func(time.Weekday) string), new(func(time.Month) string)),
		expr.Function("int", m.toInt, new(func(int) int), new(func(int64) int), new(func(float64) int), new(func(string) int),
			new(func(time.Weekday) int), new(func(time.Month) int)),
		expr.Function("float", m.toFloat, new(func(int) float64), new(func(int64) float64), new(func(float64) float64), new(func(string) float64)),
	}
}

// asText returns argument n as a text; metadata can hold anything.
func asText(args []any, n int) (string, error) {
	if s, ok := args[n].(string); ok {
		return s, nil
	}
	return "", &filterError{kind: "value_type", text: fmt.Sprintf("a text is needed, but the value is %s", valueName(args[n]))}
}

func (m *meter) matches(args ...any) (any, error) {
	if args[0] == nil {
		return false, nil // as the language does for a missing value
	}
	s, err := asText(args, 0)
	if err != nil {
		return nil, err
	}
	if len(s) > maxMatchText {
		return nil, &filterError{kind: "text_too_long", text: fmt.Sprintf("matches looks at texts of at most %d bytes", maxMatchText)}
	}
	p := args[1].(*pattern)
	if err := m.spend(len(s) * p.cost); err != nil {
		return nil, err
	}
	return p.re.MatchString(s), nil
}

func (m *meter) add(args ...any) (any, error) {
	a, isText := args[0].(string)
	b, both := args[1].(string)
	if !isText || !both {
		return runtime.Add(args[0], args[1]), nil
	}
	if err := m.spend(len(a) + len(b)); err != nil {
		return nil, err
	}
	return a + b, nil
}

func (m *meter) pass(args ...any) (any, error) {
	if err := m.spend(passCost + m.body); err != nil {
		return nil, err
	}
	yes, ok := args[0].(bool)
	if !ok {
		return nil, &filterError{kind: "value_type", text: fmt.Sprintf("a condition is %s instead of true or false", valueName(args[0]))}
	}
	return yes, nil
}

func (m *meter) text(f func(string) string) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		s, err := asText(args, 0)
		if err != nil {
			return nil, err
		}
		if err := m.spend(len(s)); err != nil {
			return nil, err
		}
		return f(s), nil
	}
}

func (m *meter) text2(one func(string) string, two func(string, string) string) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		if len(args) == 1 {
			return m.text(one)(args...)
		}
		cut, err := asText(args, 1)
		if err != nil {
			return nil, err
		}
		return m.text(func(s string) string { return two(s, cut) })(args...)
	}
}

func (m *meter) split(args ...any) (any, error) {
	s, err := asText(args, 0)
	if err != nil {
		return nil, err
	}
	sep, err := asText(args, 1)
	if err != nil {
		return nil, err
	}
	if err := m.spend(len(s)); err != nil {
		return nil, err
	}
	pieces := strings.SplitN(s, sep, maxPieces+1)
	if len(pieces) > maxPieces {
		return nil, &filterError{kind: "text_too_long", text: fmt.Sprintf("split makes at most %d pieces", maxPieces)}
	}
	return pieces, nil
}

func (m *meter) replace(args ...any) (any, error) {
	var texts [3]string
	for i := range texts {
		s, err := asText(args, i)
		if err != nil {
			return nil, err
		}
		texts[i] = s
	}
	s, old, put := texts[0], texts[1], texts[2]
	// Spent before the work, so that the result never exists when it is too large.
	n := strings.Count(s, old)
	if n > 0 && len(put) > maxWork/n {
		return nil, m.spend(maxWork + 1)
	}
	if err := m.spend(len(s) + n*len(put)); err != nil {
		return nil, err
	}
	return strings.ReplaceAll(s, old, put), nil
}

func (m *meter) toString(args ...any) (any, error) {
	switch v := args[0].(type) {
	case string:
		return v, nil
	case time.Time:
		return v.Format(time.RFC3339Nano), nil
	case fmt.Stringer: // duration, weekday, month
		return v.String(), nil
	}
	plain, err := plainValue(args[0])
	if err != nil {
		return nil, err
	}
	switch v := plain.(type) {
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	}
	return plain, nil
}

func (m *meter) toInt(args ...any) (any, error) {
	if s, ok := args[0].(string); ok {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			return nil, &filterError{kind: "not_a_number", text: "int() got a text that is no whole number"}
		}
		return n, nil
	}
	plain, fault := plainValue(args[0])
	if fault != nil {
		return nil, fault
	}
	switch v := plain.(type) {
	case int64:
		return int(v), nil
	case float64:
		if v >= math.MinInt64 && v < math.MaxInt64 {
			return int(v), nil
		}
	}
	return nil, &filterError{kind: "not_a_number", text: "int() got a value that is no whole number"}
}

func (m *meter) toFloat(args ...any) (any, error) {
	if s, ok := args[0].(string); ok {
		n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			return nil, &filterError{kind: "not_a_number", text: "float() got a text that is no number"}
		}
		return n, nil
	}
	plain, fault := plainValue(args[0])
	if fault != nil {
		return nil, fault
	}
	switch v := plain.(type) {
	case int64:
		return float64(v), nil
	case float64:
		return v, nil
	}
	return nil, &filterError{kind: "not_a_number", text: "float() got a value that is no number"}
}

// valueName describes the type of a value without the value.
func valueName(v any) string {
	if v == nil {
		return "missing"
	}
	return typeName(reflect.TypeOf(v).String())
}
