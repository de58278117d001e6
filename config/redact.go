package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
)

// redactable is the length from which a secret is looked for in what others say. A shorter
// one, such as "guest", is a word that may mean something else.
const redactable = 8

// Redactor returns a function that replaces each secret of the configuration in a text by
// ***. A broker, a database or a proxy can repeat in an error what it was told at the login.
// The function is safe for concurrent use.
func (c *Config) Redactor() func(string) string {
	var found []string
	collect(reflect.ValueOf(c), &found)
	slices.SortFunc(found, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // the whole before a part
	var pairs []string
	for _, s := range slices.Compact(found) {
		pairs = append(pairs, s, hidden)
	}
	return strings.NewReplacer(pairs...).Replace
}

// collect appends the secrets in v that are to be looked for.
func collect(v reflect.Value, found *[]string) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			collect(v.Elem(), found)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			collect(v.Field(i), found)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			collect(v.Index(i), found)
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			collect(key, found)
			collect(value, found)
		}
	case reflect.String:
		if v.Type() == reflect.TypeFor[Secret]() && v.Len() >= redactable {
			*found = append(*found, v.String())
		}
	}
}
