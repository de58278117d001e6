package stanza

import "time"

// parseStamp reads a DateTime of XEP-0082, section 3.2; the zero time if b is none.
// It is stricter than time.Parse, which takes one-digit hours and decimal commas.
func parseStamp(b []byte) time.Time {
	const shape = "dddd-dd-ddTdd:dd:dd"
	if len(b) <= len(shape) || !hasShape(b[:len(shape)], shape) {
		return time.Time{}
	}
	zone := len(shape)
	if b[zone] == '.' {
		zone++
		for zone < len(b) && '0' <= b[zone] && b[zone] <= '9' {
			zone++
		}
	}
	if rest := b[zone:]; !hasShape(rest, "Z") && !hasShape(rest, "+dd:dd") && !hasShape(rest, "-dd:dd") {
		return time.Time{}
	}
	var t time.Time
	if err := t.UnmarshalText(b); err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// hasShape compares b to a shape in which 'd' stands for a digit.
func hasShape(b []byte, shape string) bool {
	if len(b) != len(shape) {
		return false
	}
	for i := range b {
		if shape[i] == 'd' {
			if b[i] < '0' || b[i] > '9' {
				return false
			}
		} else if b[i] != shape[i] {
			return false
		}
	}
	return true
}
