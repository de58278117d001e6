package config

import (
	"fmt"
	"strings"
)

// keyPath is the way to a key: tables, tags and positions in arrays.
type keyPath []string

func (p keyPath) with(name string) keyPath {
	return append(p[:len(p):len(p)], name)
}

// String writes the path as TOML does, with quotes where a bare key would not do.
// Names come from the file: what cannot be printed is escaped.
func (p keyPath) String() string {
	var b strings.Builder
	for i, name := range p {
		switch {
		case strings.HasPrefix(name, "["): // a position: filter[0]
		case i > 0:
			b.WriteByte('.')
		}
		if bareKey(name) || strings.HasPrefix(name, "[") {
			b.WriteString(name)
			continue
		}
		fmt.Fprintf(&b, "%q", clip(name))
	}
	return b.String()
}

// HTTPPoolPath returns the path of a key of [outgoing_pools.http.TAG], as problems
// name it.
func HTTPPoolPath(tag string, names ...string) string {
	return append(keyPath{"outgoing_pools", "http", tag}, names...).String()
}

// HandlerPath returns the path of the http handler at index i, as problems name it.
func HandlerPath(i int) string {
	return pusherPath.with("http").with("handlers").with(position(i)).String()
}

// position is the path element of item i of an array, counted from 1 as people do.
func position(i int) string { return fmt.Sprintf("[%d]", i+1) }

func bareKey(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isAlphanumeric(c) && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// delimiter separates the parts of viper's keys. The usual dot would split host
// names and quoted keys.
const delimiter = "::"

// viperKey writes the path for viper, which lower-cases keys: upper case, colons
// and what is not ASCII are escaped, so that tags keep their case and two tags that
// differ in case stay two.
func (p keyPath) viperKey() string {
	parts := make([]string, len(p))
	for i, name := range p {
		parts[i] = escapeKey(name)
	}
	return strings.Join(parts, delimiter)
}

func escapeKey(name string) string {
	if name == "" {
		return "^"
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if c := name[i]; 'A' <= c && c <= 'Z' || c == ':' || c == '^' || c >= 0x80 {
			fmt.Fprintf(&b, "^%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// variable names the environment variable that overrides the key.
func (p keyPath) variable() string {
	name := strings.ToUpper(strings.Join(p, "_"))
	return variablePrefix + strings.Map(func(r rune) rune {
		if r < 0x80 && isAlphanumeric(byte(r)) {
			return r
		}
		return '_'
	}, name)
}
