package filter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"eventpusher/event"
)

// fieldValues lists all values of the fields that have only few. A comparison
// with any other is a mistake that would drop or keep every event in silence.
func fieldValues(field string) []string {
	switch field {
	case "kind":
		return []string{event.UserStatus.String(), event.Chat.String(), event.Unack.String(), event.Stored.String(), event.Notification.String(),
			event.Missed.String()}
	case "type":
		return []string{"chat", "groupchat", "headline", "normal", "online", "offline"}
	case "direction":
		return []string{event.In.String(), event.Out.String(), event.NoDirection.String()}
	case "sort":
		var names []string
		if all, err := event.ParseSelection([]string{"all"}); err == nil {
			for _, e := range all.Samples() {
				names = append(names, e.Sort())
			}
		}
		return names
	case "class":
		var names []string
		for c := event.Other; c <= event.Retraction; c++ {
			names = append(names, c.String())
		}
		return names
	}
	return nil
}

// comparison refuses to compare a field with a value that it never has.
func (g *guard) comparison(n *ast.BinaryNode) {
	switch n.Operator {
	case "==", "!=":
		g.possible(n.Left, n.Right)
		g.possible(n.Right, n.Left)
	case "in":
		if list, ok := n.Right.(*ast.ArrayNode); ok {
			for _, element := range list.Nodes {
				g.possible(n.Left, element)
			}
		}
	}
}

func (g *guard) possible(field, value ast.Node) {
	member, ok := field.(*ast.MemberNode)
	if !ok {
		return
	}
	object, ok := member.Node.(*ast.IdentifierNode)
	name, named := member.Property.(*ast.StringNode)
	text, constant := value.(*ast.StringNode)
	if !ok || !named || !constant || object.Value != "event" {
		return
	}
	values := fieldValues(name.Value)
	if values == nil || slices.Contains(values, text.Value) {
		return
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	g.refuse(value, fmt.Sprintf("event.%s is never %q", name.Value, text.Value), "it is one of "+strings.Join(quoted, ", "))
}
