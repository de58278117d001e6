package config

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// check judges one string; nil means that it will do.
type check func(string) *complaint

func text(name string, dst *string, def any, checks ...check) field {
	return scalar(name, textShape, def, textWith(checks...), into(dst))
}

// texts is a list of strings, each of which passes the checks. A nil *dst means
// that the key was not given; an empty list that it was given empty.
func texts(name string, dst *[]string, def any, checks ...check) field {
	one := textWith(checks...)
	convert := func(v any) ([]string, *complaint) {
		items, ok := v.([]any)
		if !ok {
			return nil, mistyped(v, `an array of strings, such as ["a", "b"]`)
		}
		out := make([]string, 0, len(items))
		var wrong, remedies []string
		for i, item := range items {
			s, bad := one(item)
			if bad != nil {
				wrong = append(wrong, fmt.Sprintf("item %d %s", i+1, bad.text))
				if !slices.Contains(remedies, bad.remedy) {
					remedies = append(remedies, bad.remedy)
				}
			}
			out = append(out, s)
		}
		if wrong != nil {
			return nil, &complaint{strings.Join(wrong, ", "), strings.Join(remedies, ", ")}
		}
		return out, nil
	}
	return scalar(name, textsShape, def, convert, into(dst))
}

// choice is one of a few words.
func choice(name string, dst *string, def any, words ...string) field {
	return text(name, dst, def, oneOf(words...))
}

func integer(name string, dst *int, def any, lowest, highest int64) field {
	convert := func(v any) (int, *complaint) {
		n, bad := integerWithin(v, lowest, highest)
		return int(n), bad
	}
	return scalar(name, integerShape, def, convert, into(dst))
}

func boolean(name string, dst *bool, def any) field {
	return scalar(name, booleanShape, def, truth, into(dst))
}

// millis is a duration in MongooseIM's notation: an integer of milliseconds.
func millis(name string, dst *time.Duration, def any, lowest int64) field {
	convert := func(v any) (time.Duration, *complaint) {
		n, bad := integerWithin(v, lowest, math.MaxInt64/int64(time.Millisecond))
		return time.Duration(n) * time.Millisecond, bad
	}
	return scalar(name, integerShape, def, convert, into(dst))
}

// duration is a duration in our own notation, a text such as "10s".
func duration(name string, dst *time.Duration, def any, lowest time.Duration) field {
	convert := func(v any) (time.Duration, *complaint) {
		s, ok := v.(string)
		if !ok {
			return 0, mistyped(v, `a duration in quotes, such as "500ms", "10s" or "72h"`)
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, &complaint{"is not a duration", `write one such as "500ms", "10s" or "72h"`}
		}
		if d < lowest {
			return 0, &complaint{fmt.Sprintf("is %v", d), fmt.Sprintf("write %v or more", lowest)}
		}
		return d, nil
	}
	return scalar(name, textShape, def, convert, into(dst))
}

func size(name string, dst *Size, def any, lowest Size) field {
	convert := func(v any) (Size, *complaint) {
		n, isInteger := v.(int64)
		if s, isText := v.(string); isText {
			parsed, ok := parseSize(s)
			if !ok {
				return 0, &complaint{"is not a size", `write a number of bytes, or one with a unit such as "64KiB", "4MiB" or "10GiB"`}
			}
			n = int64(parsed)
		} else if !isInteger {
			return 0, mistyped(v, `a size, such as 4194304 or "4MiB"`)
		}
		if Size(n) < lowest {
			return 0, &complaint{fmt.Sprintf("is %d bytes", n), fmt.Sprintf("write %q or more", lowest.String())}
		}
		return Size(n), nil
	}
	return scalar(name, sizeShape, def, convert, into(dst))
}

// level is a level of the log.
func level(name string, dst *slog.Level, def any) field {
	convert := func(v any) (slog.Level, *complaint) {
		var l slog.Level
		s, bad := textWith(oneOf("debug", "info", "warn", "error"))(v)
		if bad == nil {
			_ = l.UnmarshalText([]byte(s)) // oneOf has left only names that it knows
		}
		return l, bad
	}
	return scalar(name, textShape, def, convert, into(dst))
}

// isPackageLevel wants what Log.Packages reads.
func isPackageLevel(s string) *complaint {
	name, level, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return &complaint{quote(s) + " is not a package with a level", `write "pusher=debug", say`}
	}
	return oneOf("debug", "info", "warn", "error")(level)
}

// textWith converts strings that pass all checks.
func textWith(checks ...check) func(any) (string, *complaint) {
	return func(v any) (string, *complaint) {
		s, ok := v.(string)
		if !ok {
			return "", mistyped(v, "a string in quotes")
		}
		for _, judge := range checks {
			if bad := judge(s); bad != nil {
				return "", bad
			}
		}
		return s, nil
	}
}

func anyText(v any) (string, *complaint) { return textWith()(v) }

func nonEmpty(s string) *complaint {
	if s == "" {
		return &complaint{"is empty", "write a value, or remove the key"}
	}
	return nil
}

// filled is nonEmpty for a key that has to be there.
func filled(s string) *complaint {
	if s == "" {
		return &complaint{"is empty", "write a value"}
	}
	return nil
}

func oneOf(words ...string) check {
	return func(s string) *complaint {
		if slices.Contains(words, s) {
			return nil
		}
		return &complaint{fmt.Sprintf("%q is not known", clip(s)), "write one of " + strings.Join(words, ", ")}
	}
}

// clip shortens what a message quotes.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func truth(v any) (bool, *complaint) {
	b, ok := v.(bool)
	if !ok {
		return false, mistyped(v, "true or false, without quotes")
	}
	return b, nil
}

func integerWithin(v any, lowest, highest int64) (int64, *complaint) {
	n, ok := v.(int64)
	if s, isText := v.(string); isText {
		if meant, err := strconv.ParseInt(s, 10, 64); err == nil {
			return 0, mistyped(v, strconv.FormatInt(meant, 10)+" without quotes")
		}
	}
	if !ok {
		return 0, mistyped(v, "an integer without quotes, such as "+strconv.FormatInt(max(lowest, 10), 10))
	}
	switch {
	case n < lowest:
		return 0, &complaint{fmt.Sprintf("is %d", n), fmt.Sprintf("write %d or more", lowest)}
	case n > highest:
		return 0, &complaint{fmt.Sprintf("is %d", n), fmt.Sprintf("write %d or less", highest)}
	}
	return n, nil
}

// mistyped complains about a value of the wrong type, without showing it.
func mistyped(v any, want string) *complaint {
	return &complaint{"is " + typeName(v), "write " + want}
}

// typeName names a value's type as the TOML specification does.
func typeName(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case map[string]any:
		return "a table"
	case []any:
		return "an array"
	}
	return "a date or time"
}
