package config

// shape is what a key may hold in the file.
type shape uint8

const (
	textShape    shape = iota
	integerShape       // a TOML integer
	booleanShape
	sizeShape     // an integer or a text such as "4MiB"
	textsShape    // an array of strings
	tableShape    // a table that always exists, given or not
	sectionShape  // a table that means something by being there
	taggedShape   // a table of tables under names of the operator's choice
	listShape     // an array of tables
	formulasShape // a table of strings under names of the operator's choice
)

// scalar reports whether one environment variable can hold the value.
func (s shape) scalar() bool { return s <= textsShape }

// A field is one key: its name, its default, how its value is checked and where
// the value goes. The fields of a table are the single source for everything that
// is known about keys: the check of unknown ones, the names of environment
// variables, defaults, and the test of config.toml.example.
type field struct {
	name  string
	shape shape
	def   any // in the notation of the file; nil when there is none

	// check and store work on scalars in the notation of the file. check
	// complains about type and range; store is only given what check has passed.
	check func(v any) *complaint
	store func(v any)

	// open gives the fields of a table, bound to a new value where there can be
	// several, and what puts that value into its place once it is filled.
	open func(name string) (fields []field, done func())

	// unknown judges a key that is not in fields. Without it every unknown key is
	// an error.
	unknown func(c *checker, at keyPath, known tableFields, name string, v any)

	// variant is open for an item of an array whose keys depend on what stands in it. others
	// says what to write in place of keys that only other variants have.
	variant func(entries map[string]any) (fields []field, others map[string]string, done func())

	// secret is where the contents of the file named by a _file twin go.
	secret *Secret
	// remedies names what to write in place of keys that MongooseIM had or that
	// its documentation gets wrong.
	remedies map[string]string
}

// fields gives the field's own fields, for looking at rather than for filling.
func (f *field) fields() []field {
	if f.open == nil {
		return nil
	}
	fields, _ := f.open("")
	return fields
}

// complaint says what is wrong with one value.
type complaint struct{ text, remedy string }

// scalar builds a field whose value convert turns into a T.
func scalar[T any](name string, s shape, def any, convert func(any) (T, *complaint), store func(T)) field {
	return field{
		name: name, shape: s, def: def,
		check: func(v any) *complaint {
			_, bad := convert(v)
			return bad
		},
		store: func(v any) {
			if t, bad := convert(v); bad == nil {
				store(t)
			}
		},
	}
}

// into returns a store for dst.
func into[T any](dst *T) func(T) { return func(v T) { *dst = v } }

// table is a table that is part of its parent, with defaults when it is not given.
func table(name string, fields ...field) field {
	return field{
		name: name, shape: tableShape,
		open: func(string) ([]field, func()) { return fields, func() {} },
	}
}

// section is a table that is switched on by being there: *dst stays nil without it.
func section[T any](name string, dst **T, fields func(*T) []field) field {
	return field{
		name: name, shape: sectionShape,
		open: func(string) ([]field, func()) {
			t := new(T)
			return fields(t), func() { *dst = t }
		},
	}
}

// tagged is a table of tables whose names the operator chooses; their case counts.
func tagged[T any](name string, dst *map[string]T, fields func(*T) []field) field {
	return field{
		name: name, shape: taggedShape,
		open: func(tag string) ([]field, func()) {
			t := new(T)
			return fields(t), func() {
				if *dst == nil {
					*dst = make(map[string]T)
				}
				(*dst)[tag] = *t
			}
		},
	}
}

// list is an array of tables.
func list[T any](name string, dst *[]T, fields func(*T) []field) field {
	return field{
		name: name, shape: listShape,
		open: func(string) ([]field, func()) {
			t := new(T)
			return fields(t), func() { *dst = append(*dst, *t) }
		},
	}
}

// variants is an array of tables whose keys depend on what stands in each.
func variants[T any](name string, dst *[]T, fields func(t *T, entries map[string]any) (known []field, others map[string]string)) field {
	return field{
		name: name, shape: listShape,
		variant: func(entries map[string]any) ([]field, map[string]string, func()) {
			t := new(T)
			known, others := fields(t, entries)
			return known, others, func() { *dst = append(*dst, *t) }
		},
	}
}

// formulas is a table of expressions whose names the operator chooses; their case
// counts.
func formulas(name string, dst *map[string]string) field {
	return field{
		name: name, shape: formulasShape,
		open: func(key string) ([]field, func()) {
			value := scalar(key, textShape, nil, anyText, func(s string) {
				if *dst == nil {
					*dst = make(map[string]string)
				}
				(*dst)[key] = s
			})
			return []field{value}, func() {}
		},
	}
}

// secret is a secret and its twin that names a file.
func secret(name string, dst *Secret, def any, checks ...check) []field {
	value := text(name, (*string)(dst), def, checks...)
	file := text(name+"_file", new(string), nil, nonEmpty)
	file.secret = dst
	return []field{value, file}
}

// join puts fields and groups of fields into one list.
func join(groups ...[]field) []field {
	var all []field
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}
