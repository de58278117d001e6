package stanza

import (
	"bytes"
	"strings"
	"testing"
)

// Where the functions that look at eight bytes at a time end, by the byte that ends
// them, at each place in the word, with the bytes beside it that could be mistaken.
func TestRuns(t *testing.T) {
	isLower := func(c byte) bool { return 'a' <= c && c <= 'z' }
	for _, c := range []struct {
		name string
		run  func(b []byte, i int) (end int)
		// must says that a run has to end at c, may that it is allowed to.
		must, may func(c byte) bool
	}{
		{
			"text", textRun,
			func(c byte) bool { return byteClass[c]&(textStop|beyond) != 0 },
			func(c byte) bool { return strings.IndexByte("\t\n=\\|}", c) >= 0 },
		},
		{
			"value", valueRun,
			func(c byte) bool { return byteClass[c]&(attrStop|beyond) != 0 },
			func(c byte) bool { return c < '(' },
		},
		{
			"letters", func(b []byte, i int) int { return i + letters(b, i) },
			func(c byte) bool { return !isLower(c) },
			func(byte) bool { return false },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for stop := range 256 {
				stop := byte(stop)
				for at := range 8 {
					for _, filler := range []byte{'a', 'm', 'z'} {
						b := bytes.Repeat([]byte{filler}, 24)
						b[3+at] = stop
						for _, behind := range []byte{0, stop - 1, stop + 1, 0x80, 0xFF, '<', filler} {
							b[3+at+1] = behind
							end, want := c.run(b, 3), 3+at
							if !c.must(stop) && !(c.may(stop) && end == want) {
								if end <= want {
									t.Fatalf("%q: ends at %d, in front of %q", b, end, stop)
								}
								continue
							}
							if end != want {
								t.Fatalf("%q: ends at %d, want %d, at %q", b, end, want, stop)
							}
						}
					}
				}
			}
			for n := range 8 {
				if end := c.run([]byte("1aaaaaaaaa")[:3+n], 3); end != 3 {
					t.Errorf("with %d bytes left it ends at %d", n, end)
				}
			}
		})
	}
}
