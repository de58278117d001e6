package jid

import "testing"

func TestDomains(t *testing.T) {
	d := NewDomains("Example.org", "conference.example.org.")
	for _, tc := range []struct {
		address JID
		has, of bool
	}{
		{"example.org", true, true},
		{"conference.example.org", true, true},
		{"alice@example.org", false, true},
		{"alice@example.org/phone", false, true},
		{"example.org/phone", false, true},
		{"example.com", false, false},
		{"alice@example.com/example.org", false, false},
		{"", false, false},
	} {
		if has, of := d.Has(tc.address), d.Of(tc.address); has != tc.has || of != tc.of {
			t.Errorf("%q: has %v, of %v", tc.address, has, of)
		}
		if (Domains{}).Of(tc.address) {
			t.Errorf("%q is in the empty set", tc.address)
		}
	}
}
