package config

import "time"

// Key is one key of a section: its name, type, default and range, bound to the place where
// its value goes. The functions below make keys. A value of another type, or outside of the
// range, is an error at check and at start; an unknown key is an error as well.
type Key = field

// Text returns a key for a string that is not empty. Without def there is no default, and
// *dst is empty if the key is not given.
func Text(name string, dst *string, def string) Key {
	return text(name, dst, absent(def), nonEmpty)
}

// Texts returns a key for an array of strings that are not empty. *dst is nil if the key
// is not given.
func Texts(name string, dst *[]string) Key { return texts(name, dst, nil, nonEmpty) }

// Word returns a key for one of several words. Without def there is no default.
func Word(name string, dst *string, def string, words ...string) Key {
	return choice(name, dst, absent(def), words...)
}

// Integer returns a key for an integer from lowest to highest.
func Integer(name string, dst *int, def, lowest, highest int) Key {
	return integer(name, dst, int64(def), int64(lowest), int64(highest))
}

// Boolean returns a key for true or false.
func Boolean(name string, dst *bool, def bool) Key { return boolean(name, dst, def) }

// Duration returns a key for a text such as "500ms" or "10s", lowest or more.
func Duration(name string, dst *time.Duration, def, lowest time.Duration) Key {
	return duration(name, dst, def.String(), lowest)
}

// Bytes returns a key for a number of bytes, lowest or more: an integer, or a text such as "4MiB".
func Bytes(name string, dst *Size, def, lowest Size) Key {
	return size(name, dst, int64(def), lowest)
}

// SecretKeys returns a key for a secret, and one with _file behind its name for the file that
// holds it.
func SecretKeys(name string, dst *Secret) []Key { return secret(name, dst, nil, filled) }

func absent(def string) any {
	if def == "" {
		return nil
	}
	return def
}
