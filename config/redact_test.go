package config

import (
	"reflect"
	"strings"
	"testing"
)

// TestRedactor: each secret that a configuration can hold is found, wherever it is.
func TestRedactor(t *testing.T) {
	var c Config
	n := 0
	fill(reflect.ValueOf(&c).Elem(), &n)
	if n < 15 {
		t.Fatalf("only %d secrets were filled in", n)
	}
	redact := c.Redactor()
	for i := range n {
		said := redact("the broker says: " + string(secretOf(i)) + " is refused")
		if said != "the broker says: *** is refused" {
			t.Errorf("%d: %s", i, said)
		}
	}
	if text := "guest is refused"; redact(text) != text {
		t.Error("a word was replaced")
	}
	if got := (&Config{Component: Component{Secret: "guest"}}).Redactor()("guest is refused"); got != "guest is refused" {
		t.Error(got)
	}
}

func secretOf(n int) Secret { return Secret("secret-" + strings.Repeat("x", n) + "-end") }

// fill gives each secret below v a value of its own, and counts them.
func fill(v reflect.Value, n *int) {
	if v.Type() == reflect.TypeFor[Secret]() {
		v.SetString(string(secretOf(*n)))
		*n++
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.Struct {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct || v.Type().Elem() == reflect.TypeFor[Secret]() {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), n)
		}
	case reflect.Map:
		if v.Type().Key().Kind() == reflect.String {
			value := reflect.New(v.Type().Elem()).Elem()
			fill(value, n)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("k").Convert(v.Type().Key()), value)
		}
	}
}
