package event

import "fmt"

// MarshalText writes the kind by name, as JSON has it.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the name of a kind. The zero kind has one too: among the dead
// letters are stanzas of which nobody knows what they are.
func (k *Kind) UnmarshalText(text []byte) error { return byName(k, text, Push) }

// MarshalText writes the direction by name, as JSON has it.
func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the name of a direction.
func (d *Direction) UnmarshalText(text []byte) error {
	return byName(d, text, Out)
}

// MarshalText writes the class by name, as JSON has it.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the name of a class.
func (c *Class) UnmarshalText(text []byte) error {
	return byName(c, text, Retraction)
}

// byName sets v to the first one up to the last that has this name.
func byName[T interface {
	~uint8
	fmt.Stringer
}](v *T, text []byte, last T) error {
	for candidate := T(0); candidate <= last; candidate++ {
		if candidate.String() == string(text) {
			*v = candidate
			return nil
		}
	}
	return fmt.Errorf("event: %q is no %T", text, *v)
}
