package config

import "math"

// typeExpression is the type of filter that this package has itself.
const typeExpression = "expression"

// filterTypes are the types of eventpusher and the program's own.
func filterTypes(own []Type) []variantOf[Filter] {
	types := []variantOf[Filter]{{name: typeExpression, settings: func(f *Filter) Settings { return (*expressions)(f) }}}
	for _, t := range own {
		if t.section == filterKey {
			types = append(types, variantOf[Filter]{name: t.name, settings: func(f *Filter) Settings {
				f.Settings = t.settings()
				return f.Settings
			}})
		}
	}
	return types
}

// filters is [[filter]], whose keys depend on its type.
func filters(dst *[]Filter, own []Type) field {
	types := filterTypes(own)
	return variants(filterKey, dst, func(f *Filter, entries map[string]any) ([]field, map[string]string) {
		if entries["type"] == nil {
			entries = map[string]any{"type": typeExpression}
		}
		return pick(f, f.common(names(types)), types, entries)
	})
}

const filterKey = "filter"

func (f *Filter) common(types []string) []field {
	return []field{
		text("name", &f.Name, nil, filled),
		choice("type", &f.Type, typeExpression, types...),
		scalar("priority", integerShape, int64(10), filterPriority, into(&f.Priority)),
		choice("on_error", &f.OnError, "dead_letter", "dead_letter", "keep", "drop"),
		boolean("override", &f.Override, false),
	}
}

// expressions are the keys of a filter of expressions.
type expressions Filter

// Keys implements Settings.
func (f *expressions) Keys() []Key {
	return []Key{text("keep", &f.Keep, nil, nonEmpty), formulas("metadata", &f.Metadata)}
}

// Check implements Settings.
func (f *expressions) Check(s *Section) {
	if !s.Given("keep") && !s.Given("metadata") {
		s.Warn("", "the filter has neither keep nor metadata, so it does nothing",
			`write keep = "event.class == 'content'", say, or remove the filter`)
	}
}

// filterPriority refuses 50 and above: there MongooseIM's backends stand
// (mod_event_pusher_rabbit.erl), so that a filter would judge what has left already.
func filterPriority(v any) (int, *complaint) {
	const backends = 50
	n, bad := integerWithin(v, 1, math.MaxInt64)
	if bad == nil && n >= backends {
		bad = &complaint{
			"is 50 or more: backends stand at 50, so the filter would run after the event has left",
			"write 1 to 49; lower runs first",
		}
	}
	if bad != nil {
		return 0, bad
	}
	return int(n), nil
}

// filters checks [[filter]].
func (l *loader) filters(filters []Filter) {
	seen := make(map[string]bool, len(filters))
	for i := range filters {
		f, at := &filters[i], keyPath{filterKey, position(i)}
		l.require(at.with("name").String(), `give the filter a name for logs and metrics, such as name = "content_only"`, f.Name == "")
		if f.Name != "" && seen[f.Name] {
			l.errorf(at.with("name").String(), "another filter is called "+quote(f.Name), "give each filter its own name")
		}
		seen[f.Name] = true
		if f.Settings != nil {
			f.Settings.Check(&Section{l: l, at: at})
		} else if f.Type == typeExpression {
			(*expressions)(f).Check(&Section{l: l, at: at})
		}
	}
}
