package stanza

import (
	"encoding/binary"
	"math/bits"
)

// Most of a stanza is short runs of plain ASCII, so these look at the eight bytes of
// a word at once. What ends a run is looked at by whoever called.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// textRun returns the end of a run of ASCII from i on at which text has nothing to
// stop at. It may end early: at some harmless characters (tab, line feed, =, \, |, }) and
// up to seven bytes before the end of b.
func textRun(b []byte, i int) int {
	for len(b)-i >= 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		// The high bit of a byte is set if it is beyond ASCII or a subtraction makes it
		// negative: if it is below ' ' or what it was XORed with. The first such byte
		// is exact, since none before it borrows. One pattern fits both '<' and ']'.
		brackets := (x | ones*0x61) ^ ones*0x7D
		hits := (x | (x - ones*' ') | ((x ^ ones*'&') - ones) | (brackets - ones)) & highs
		if hits != 0 {
			return i + bits.TrailingZeros64(hits)/8
		}
		i += 8
	}
	return i
}

// valueRun is textRun for value. All that it stops at but '<' is below '(', and the
// harmless rest of that is rare in attributes.
func valueRun(b []byte, i int) int {
	for len(b)-i >= 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		hits := (x | (x - ones*'(') | ((x ^ ones*'<') - ones)) & highs
		if hits != 0 {
			return i + bits.TrailingZeros64(hits)/8
		}
		i += 8
	}
	return i
}

// letters returns how many of the next eight bytes at i are lower-case letters of
// ASCII before the first that is none, and 0 if there are no eight bytes. Most names
// are nothing else.
func letters(b []byte, i int) int {
	if len(b)-i < 8 {
		return 0
	}
	x := binary.LittleEndian.Uint64(b[i:])
	// With the high bits set no subtraction borrows from the next byte, and a high
	// bit stays set where the byte's lower bits are not below what is subtracted.
	fromA, beyondZ := (x|highs)-ones*'a', (x|highs)-ones*('z'+1)
	return bits.TrailingZeros64((^fromA|beyondZ|x)&highs) / 8
}
