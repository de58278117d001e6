package config

import (
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written as an integer or as "4MiB", "64KiB", "1GiB".
type Size int64

// Binary units, longest first so that "KiB" is not read as "B".
var units = [...]struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"B", 1},
}

// parseSize reads a number with a binary unit; ok is false for anything else and
// for what does not fit 63 bits.
func parseSize(s string) (size Size, ok bool) {
	for _, unit := range units {
		digits, found := strings.CutSuffix(s, unit.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil || n > uint64(math.MaxInt64/unit.bytes) {
			return 0, false
		}
		return Size(int64(n) * unit.bytes), true
	}
	return 0, false
}

// String writes the size with the largest unit that leaves a whole number.
func (s Size) String() string {
	for _, unit := range units {
		if n := int64(s); n != 0 && n%unit.bytes == 0 {
			return strconv.FormatInt(n/unit.bytes, 10) + unit.name
		}
	}
	return "0B"
}
