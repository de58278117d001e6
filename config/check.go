package config

import (
	"maps"
	"slices"
	"strings"
)

// checker compares the file with the fields and keeps what is known and well typed.
type checker struct {
	findings
	ignored        []string // sections of MongooseIM that mean nothing here
	ignoredGeneral []string // the same for keys of [general]
}

// tableFields is a table of the schema on the way down, with the tables above it.
type tableFields struct {
	fields []field
	parent *tableFields
}

// table checks one table of the file and returns what is usable in it: known keys,
// with values that their fields accept. Arrays of tables become tables under
// position names.
func (c *checker) table(at keyPath, known tableFields, raw map[string]any, owner *field) map[string]any {
	clean := make(map[string]any, len(raw))
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		i := slices.IndexFunc(known.fields, func(f field) bool { return f.name == name })
		switch {
		case i >= 0:
			if v, ok := c.value(at.with(name), &known.fields[i], known, raw[name]); ok {
				clean[name] = v
			}
		case owner != nil && owner.remedies[name] != "":
			c.errorf(at.with(name).String(), "unknown key", owner.remedies[name])
		case owner != nil && owner.unknown != nil:
			owner.unknown(c, at, known, name, raw[name])
		default:
			c.unknownKey(at, known, name)
		}
	}
	return clean
}

// value checks one key's value; ok is false when nothing of it can be used.
func (c *checker) value(at keyPath, f *field, parent tableFields, v any) (clean any, ok bool) {
	if f.shape.scalar() {
		if bad := f.check(v); bad != nil {
			c.errorf(at.String(), bad.text, bad.remedy)
			return nil, false
		}
		return v, true
	}
	if f.shape == listShape {
		return c.items(at, f, parent, v)
	}
	entries, isTable := v.(map[string]any)
	if !isTable {
		bad := mistyped(v, "a table, ["+at.String()+"]")
		c.errorf(at.String(), bad.text, bad.remedy)
		return nil, false
	}
	switch f.shape {
	case taggedShape:
		return c.tags(at, f, parent, entries), true
	case formulasShape:
		return c.formulas(at, f, entries), true
	}
	return c.table(at, tableFields{f.fields(), &parent}, entries, f), true
}

// items checks an array of tables.
func (c *checker) items(at keyPath, f *field, parent tableFields, v any) (any, bool) {
	items, isArray := v.([]any)
	if !isArray {
		bad := mistyped(v, "an array of tables, [["+at.String()+"]]")
		c.errorf(at.String(), bad.text, bad.remedy)
		return nil, false
	}
	clean := make(map[string]any, len(items))
	for i, item := range items {
		here := at.with(position(i))
		entries, isTable := item.(map[string]any)
		if !isTable {
			bad := mistyped(item, "a table, [["+at.String()+"]]")
			c.errorf(here.String(), bad.text, bad.remedy)
			continue
		}
		if f.variant == nil {
			clean[position(i)] = c.table(here, tableFields{f.fields(), &parent}, entries, f)
			continue
		}
		var known []field
		owner := *f
		known, owner.remedies, _ = f.variant(entries)
		clean[position(i)] = c.table(here, tableFields{known, &parent}, entries, &owner)
	}
	return clean, true
}

func (c *checker) tags(at keyPath, f *field, parent tableFields, raw map[string]any) map[string]any {
	clean := make(map[string]any, len(raw))
	for _, tag := range slices.Sorted(maps.Keys(raw)) {
		here := at.with(tag)
		entries, isTable := raw[tag].(map[string]any)
		switch {
		case tag == "":
			c.errorf(here.String(), "the tag is empty", "name the pool: ["+at.String()+".my_pool]")
		case !isTable:
			bad := mistyped(raw[tag], "a table, ["+here.String()+"]")
			c.errorf(here.String(), bad.text, bad.remedy)
		default:
			clean[tag] = c.table(here, tableFields{f.fields(), &parent}, entries, f)
		}
	}
	return clean
}

func (c *checker) formulas(at keyPath, f *field, raw map[string]any) map[string]any {
	clean := make(map[string]any, len(raw))
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		here := at.with(key).String()
		s, isText := raw[key].(string)
		switch {
		case key == "":
			c.errorf(here, "the key is empty", "name the metadata")
		case !isText:
			c.errorf(here, "is "+typeName(raw[key]), `write an expression in quotes, such as "event.timestamp", "42" or "'text'"`)
		default:
			clean[key] = s
		}
	}
	return clean
}

// unknownKey complains about a key and names the one it was probably meant to be:
// a similar one in the same table, the same one a level below or above, or all.
func (c *checker) unknownKey(at keyPath, known tableFields, name string) {
	path := at.with(name).String()
	names := make([]string, len(known.fields))
	for i := range known.fields {
		names[i] = known.fields[i].name
	}
	meant := ""
	if near := nearest(name, names); near != "" {
		meant = at.with(near).String()
	} else if below := fieldBelow(at, known.fields, name); below != nil {
		meant = below.String()
	} else if known.parent != nil && slices.ContainsFunc(known.parent.fields, func(f field) bool { return f.name == name }) {
		meant = at[:len(at)-1].with(name).String()
	}
	switch {
	case meant != "":
		c.settle(meant)
		c.errorf(path, "unknown key", "did you mean "+meant+"?")
	case len(names) == 0:
		c.errorf(path, "unknown key", "remove it: "+at.String()+" has no keys")
	default:
		c.errorf(path, "unknown key", "known here: "+strings.Join(names, ", "))
	}
}

// fieldBelow finds a scalar of that name in the tables of fields.
func fieldBelow(at keyPath, fields []field, name string) keyPath {
	for i := range fields {
		f := &fields[i]
		if f.shape.scalar() && f.name == name {
			return at.with(name)
		}
		if f.shape == tableShape || f.shape == sectionShape {
			if found := fieldBelow(at.with(f.name), f.fields(), name); found != nil {
				return found
			}
		}
	}
	return nil
}
