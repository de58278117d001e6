package jid

import (
	"strings"
	"testing"
)

func TestPrepare(t *testing.T) {
	for _, tc := range []struct{ name, raw, want string }{
		{"plain", "alice@localhost/res1", "alice@localhost/res1"},
		{"folds local and domain", "Alice@LOCALHOST/Res1", "alice@localhost/Res1"},
		{"domain only", "LocalHost", "localhost"},
		{"final dot", "Alice@example.org./r", "alice@example.org./r"},
		{"final dot alone in lower case", "example.org.", "example.org."},
		{"unicode domain", "alice@BÜCHER.Example/R", "alice@bücher.example/R"},
		{"decomposed domain", "alice@bu\u0308cher.example", "alice@bücher.example"},
		{"A-label", "alice@XN--bcher-kva.example", "alice@xn--bcher-kva.example"},
		{"A-label beside Unicode", "xn--bcher-kva.bücher.example", "bücher.bücher.example"},
		{"fullwidth is not ASCII", "ｅxample.org", "ｅxample.org"},
		{"Kelvin sign is not ASCII", "\u212Alub.example", "\u212Alub.example"},
		{"refused by IDNA", "U\u0308\u200d.example", "ü\u200d.example"},
		{"unicode local", "ŻÓŁW@localhost/Rés Ω", "żółw@localhost/Rés Ω"},
		{"unicode resource untouched", "alice@localhost/ŻÓŁW", "alice@localhost/ŻÓŁW"},
		{"refused by PRECIS", "a b\u00a0C@Host/x", "a b\u00a0c@host/x"},
		{"slash and at in the resource", "Room@muc.x/A/b@c", "room@muc.x/A/b@c"},
		{"empty", "", ""},
		{"only a resource", "/x", "/x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Prepare(tc.raw); string(got) != tc.want {
				t.Errorf("Prepare(%q) = %q, want %q", tc.raw, got, tc.want)
			}
		})
	}
}

func TestParts(t *testing.T) {
	for _, tc := range []struct {
		j                       JID
		local, domain, resource string
		bare                    JID
	}{
		{"alice@localhost/res1", "alice", "localhost", "res1", "alice@localhost"},
		{"localhost", "", "localhost", "", "localhost"},
		{"localhost/a@b", "", "localhost", "a@b", "localhost"},
		{"room@muc.x/a/b", "room", "muc.x", "a/b", "room@muc.x"},
		{"", "", "", "", ""},
	} {
		t.Run(string(tc.j), func(t *testing.T) {
			if tc.j.Local() != tc.local || tc.j.Domain() != tc.domain || tc.j.Resource() != tc.resource || tc.j.Bare() != tc.bare {
				t.Errorf("parts of %q: %q %q %q %q", tc.j, tc.j.Local(), tc.j.Domain(), tc.j.Resource(), tc.j.Bare())
			}
		})
	}
}

func TestPreparePlainDoesNotAllocate(t *testing.T) {
	raw := "alice@localhost/res1"
	if n := testing.AllocsPerRun(100, func() { _ = Prepare(raw) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func FuzzPrepare(f *testing.F) {
	f.Add("Alice@Example.ORG/Res")
	f.Add("ŻÓŁW@localhost")
	f.Add("a@xn--bcher-kva.Bu\u0308cher.example./r")
	f.Add("\u212A。ｅxample.org")
	f.Fuzz(func(t *testing.T, raw string) {
		j := Prepare(raw)
		if again := Prepare(string(j)); again.Bare() != Prepare(string(again)).Bare() {
			t.Errorf("Prepare does not settle: %q, %q", j, again)
		}
		_, _, _ = j.Local(), j.Domain(), j.Resource()
		// Nothing but ASCII is taken for a name in ASCII.
		if bare, _, _ := strings.Cut(raw, "/"); isASCII(j.Domain()) && !isASCII(bare[strings.IndexByte(bare, '@')+1:]) {
			t.Errorf("Prepare(%q) has the domain %q", raw, j.Domain())
		}
	})
}
