package filter

import (
	"github.com/expr-lang/expr/ast"

	"eventpusher/event"
)

// Possible reports whether the condition may hold of an event of e's kind, type and
// direction, and of the same going online or offline, whatever else it says. False is
// certain: such a destination would never get anything.
func (c *Condition) Possible(e *event.Event) bool {
	fields := map[string]any{"kind": e.Kind.String(), "type": e.Type, "direction": e.Direction.String(), "sort": e.Sort()}
	if e.Kind == event.UserStatus {
		fields["online"] = e.Online
	}
	v, known := constant(c.when.code.Node(), fields)
	return !known || v != false
}

// constant evaluates what depends on nothing but the fields; known is false for the rest.
func constant(n ast.Node, fields map[string]any) (v any, known bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.BoolNode:
		return n.Value, true
	case *ast.ConstantNode:
		return n.Value, true
	case *ast.MemberNode:
		object, isEvent := n.Node.(*ast.IdentifierNode)
		name, named := n.Property.(*ast.StringNode)
		if isEvent && named && object.Value == "event" {
			v, known = fields[name.Value]
		}
		return v, known
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			v, known = constant(n.Node, fields)
			return v != true, known
		}
	case *ast.ConditionalNode:
		if v, known = constant(n.Cond, fields); known && v == true {
			return constant(n.Exp1, fields)
		} else if known {
			return constant(n.Exp2, fields)
		}
	case *ast.BinaryNode:
		return constantBinary(n, fields)
	}
	return nil, false
}

func constantBinary(n *ast.BinaryNode, fields map[string]any) (v any, known bool) {
	left, knowLeft := constant(n.Left, fields)
	if n.Operator == "in" {
		if !knowLeft {
			return nil, false
		}
		return member(left, n.Right, fields)
	}
	right, knowRight := constant(n.Right, fields)
	either := func(side bool) bool { return knowLeft && left == side || knowRight && right == side }
	switch n.Operator {
	case "and", "&&":
		if either(false) {
			return false, true
		}
		return true, knowLeft && knowRight
	case "or", "||":
		if either(true) {
			return true, true
		}
		return false, knowLeft && knowRight
	case "==":
		return knowLeft && knowRight && left == right, knowLeft && knowRight
	case "!=":
		return knowLeft && knowRight && left != right, knowLeft && knowRight
	}
	return nil, false
}

// member reports whether v is in a list of constants.
func member(v any, list ast.Node, fields map[string]any) (in, known bool) {
	switch list := list.(type) {
	case *ast.ConstantNode: // what the compiler makes of a list of texts
		if set, ok := list.Value.(map[string]struct{}); ok {
			text, _ := v.(string)
			_, in = set[text]
			return in, true
		}
	case *ast.ArrayNode:
		for _, n := range list.Nodes {
			one, ok := constant(n, fields)
			if !ok {
				return false, false
			}
			in = in || one == v
		}
		return in, true
	}
	return false, false
}
