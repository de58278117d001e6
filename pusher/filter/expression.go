package filter

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"regexp/syntax"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// The cost of an expression is bounded in what it is (source, nodes, patterns,
// allowed functions) and in what it does with one event: elements of lists
// (memory budget of the machine) and bytes of text (meter).
const (
	maxSource      = 16 << 10 // bytes of an expression
	maxNodes       = 2000     // nodes of its syntax tree
	maxElements    = 10_000   // list elements made in one evaluation
	maxMatchText   = 64 << 10 // bytes of a text that matches looks at
	maxPatternSize = 4000     // instructions of a compiled pattern
)

// program is one compiled expression with the machine that runs it.
// It is not safe for concurrent use.
type program struct {
	code  *vm.Program
	vm    vm.VM
	meter *meter
}

// compileExpression compiles src against the fields of an event. The result is a
// boolean where wantBool is set, else a value that metadata can hold.
func compileExpression(src string, wantBool bool) (*program, *compileError) {
	if len(src) > maxSource {
		return nil, &compileError{text: fmt.Sprintf("is longer than %d bytes", maxSource), remedy: "split the filter into several"}
	}
	m := new(meter)
	guard := &guard{}
	options := []expr.Option{expr.Env(environment{}), expr.MaxNodes(maxNodes)}
	options = append(options, m.functions()...)
	if wantBool {
		options = append(options, expr.AsBool())
	}
	code, err := compileSafely(src, append(options, expr.Patch(guard)))
	if guard.err != nil {
		return nil, guard.err
	}
	if err == nil {
		// Patching makes the library (v1.17.8) check twice and believe what it has found out
		// about a call the first time, so an unknown name in its arguments goes unnoticed.
		_, err = compileSafely(src, options)
	}
	if err != nil {
		return nil, explain(err)
	}
	if !wantBool {
		if err := metadataType(code.Node().Type()); err != nil {
			return nil, err
		}
	}
	return &program{code: code, meter: m, vm: vm.VM{MemoryBudget: maxElements}}, nil
}

// compileSafely is expr.Compile; the library is young enough that a panic on odd
// input must not keep the other problems of a file from being shown.
func compileSafely(src string, options []expr.Option) (code *vm.Program, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("cannot be compiled")
		}
	}()
	return expr.Compile(src, options...)
}

// run evaluates the expression. Errors hold no content of the event.
func (p *program) run(env *environment) (any, error) {
	p.meter.reset(len(env.Event.Body))
	v, err := p.vm.Run(p.code, env)
	if err != nil {
		return nil, runError(err)
	}
	return v, nil
}

// truth evaluates a condition: an expression whose value is true or false.
func (p *program) truth(env *environment) (bool, error) {
	v, err := p.run(env)
	if err != nil {
		return false, err
	}
	yes, ok := v.(bool)
	if !ok {
		return false, &filterError{kind: "value_type", text: "the value is " + valueName(v) + " instead of true or false"}
	}
	return yes, nil
}

var durationType = reflect.TypeFor[time.Duration]()

// metadataType refuses expressions whose type metadata cannot hold. What is not
// known before there is an event is looked at then.
func metadataType(t reflect.Type) *compileError {
	if t == nil || t.Kind() == reflect.Interface {
		return nil
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if t != durationType {
			return nil
		}
		return &compileError{text: "gives a duration", remedy: "give a number, for example with .Seconds()"}
	}
	if t == reflect.TypeFor[time.Time]() {
		return &compileError{text: "gives a time", remedy: `give a number or a text, for example event.timestamp or event.time.Format("2006-01-02T15:04:05Z07:00")`}
	}
	return &compileError{
		text:   "gives " + typeName(t.String()),
		remedy: "metadata values are strings, numbers and booleans; write an expression that gives one of them",
	}
}

// allowedBuiltins are the functions of the language whose cost is bounded and
// whose result depends on nothing but the event. The text functions among the
// language's own are replaced by metered ones (meter.functions).
var allowedBuiltins = map[string]bool{
	"all": true, "any": true, "none": true, "one": true, "count": true,
	"len": true, "abs": true, "ceil": true, "floor": true, "round": true, "max": true, "min": true,
	"indexOf": true, "lastIndexOf": true, "hasPrefix": true, "hasSuffix": true,
}

// guard looks at the syntax tree before it is compiled: it refuses what has no
// bound and puts metered operations in the place of those that grow texts, look
// for patterns or repeat something.
type guard struct {
	err *compileError
}

func (g *guard) refuse(n ast.Node, text, remedy string) {
	if g.err == nil {
		g.err = &compileError{text: text, remedy: remedy, column: n.Location().From + 1}
	}
}

// Visit implements ast.Visitor; children come before their parents.
func (g *guard) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if n.Value == "$env" {
			g.refuse(n, "$env cannot be used", fieldsRemedy())
		}
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok && !isMetered[name.Value] {
			g.refuse(n, fmt.Sprintf("%s() does not exist", name.Value), functionsRemedy())
		}
	case *ast.BuiltinNode:
		if !allowedBuiltins[n.Name] {
			remedy := functionsRemedy()
			if n.Name == "now" || n.Name == "date" {
				remedy = "use event.time (UTC) or event.timestamp; the same event must always get the same verdict"
			}
			g.refuse(n, fmt.Sprintf("%s() is not available in filters", n.Name), remedy)
		}
	case *ast.PredicateNode:
		n.Node = operation(opPass, n.Node)
	case *ast.BinaryNode:
		g.binary(node, n)
	}
}

func (g *guard) binary(node *ast.Node, n *ast.BinaryNode) {
	g.comparison(n)
	switch n.Operator {
	case "matches":
		text, ok := n.Right.(*ast.StringNode)
		if !ok {
			g.refuse(n, "the pattern of matches is not a plain text", `write it out, as in event.body matches "(?i)help"`)
			return
		}
		p, err := compilePattern(text.Value)
		if err != nil {
			g.refuse(n, err.Error(), "correct the pattern (RE2 syntax); in TOML write the expression in '…' so that backslashes stay")
			return
		}
		ast.Patch(node, operation(opMatches, n.Left, &ast.ConstantNode{Value: p}))
	case "+":
		left, right := kindOf(n.Left), kindOf(n.Right)
		switch {
		case left == reflect.String && right == reflect.String:
			ast.Patch(node, operation(opConcat, n.Left, n.Right))
		case (left == reflect.Interface || left == reflect.String) && (right == reflect.Interface || right == reflect.String):
			ast.Patch(node, operation(opAdd, n.Left, n.Right))
		}
	}
}

// kindOf returns what is known of a node's type; Interface means nothing.
func kindOf(n ast.Node) reflect.Kind {
	if t := n.Type(); t != nil {
		return t.Kind()
	}
	return reflect.Interface
}

func operation(op string, args ...ast.Node) ast.Node {
	n := &ast.CallNode{Callee: &ast.IdentifierNode{Value: op}, Arguments: args}
	n.SetLocation(args[0].Location())
	n.Callee.SetLocation(args[0].Location())
	return n
}

// pattern is a compiled pattern with what a byte of text costs it.
type pattern struct {
	re   *regexp.Regexp
	cost int
}

func compilePattern(text string) (*pattern, error) {
	re, err := regexp.Compile(text)
	if err != nil {
		var fault *syntax.Error
		if errors.As(err, &fault) {
			return nil, fmt.Errorf("the pattern is wrong: %s: %q", fault.Code, fault.Expr)
		}
		return nil, errors.New("the pattern is wrong")
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, errors.New("the pattern is wrong")
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, errors.New("the pattern is wrong")
	}
	if len(prog.Inst) > maxPatternSize {
		return nil, fmt.Errorf("the pattern is too large (%d steps, %d at most)", len(prog.Inst), maxPatternSize)
	}
	return &pattern{re: re, cost: 1 + len(prog.Inst)/8}, nil
}
