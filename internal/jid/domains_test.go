package jid

import "testing"

func TestOver(t *testing.T) {
	d := NewDomains("example.org", "bücher.example")
	for address, want := range map[JID]bool{
		"example.org": true, "pubsub.example.org": true, "a.b.example.org": true, "alice@example.org/x": true, "x@pubsub.example.org/example.org": true,
		"pubsub.xn--bcher-kva.example": true, "org": false, "badexample.org": false, "example.org.evil.net": false, "evil.net/example.org": false, "": false,
	} {
		if got := d.Over(address); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
}

func TestDomains(t *testing.T) {
	d := NewDomains("Example.org", "conference.example.org.", "Bu\u0308cher.example", "xn--mgbh0fb.example")
	for _, tc := range []struct {
		address    JID
		has, of    bool
		configured JID // of what the set has
	}{
		{"example.org", true, true, "example.org"},
		{"conference.example.org", true, true, "conference.example.org"},
		{"alice@example.org", false, true, ""},
		{"alice@example.org/phone", false, true, ""},
		{"example.org/phone", false, true, ""},
		{"example.com", false, false, ""},
		{"alice@example.com/example.org", false, false, ""},
		{"", false, false, ""},
		{"example.org.", false, false, ""},
		{Prepare("ｅxample.org"), false, false, ""},
		{"bücher.example", true, true, "bücher.example"},
		{"xn--bcher-kva.example", true, true, "bücher.example"},
		{"مثال.example", true, true, "xn--mgbh0fb.example"},
		{"xn--mgbh0fb.example", true, true, "xn--mgbh0fb.example"},
		{"alice@xn--bcher-kva.example/r", false, true, ""},
		{"bucher.example", false, false, ""},
	} {
		if has, of := d.Has(tc.address), d.Of(tc.address); has != tc.has || of != tc.of {
			t.Errorf("%q: has %v, of %v", tc.address, has, of)
		}
		want := tc.configured
		if !tc.has {
			want = tc.address
		}
		if got := d.Configured(tc.address); got != want {
			t.Errorf("%q is configured as %q, want %q", tc.address, got, want)
		}
		if (Domains{}).Of(tc.address) {
			t.Errorf("%q is in the empty set", tc.address)
		}
	}
	n := 0
	for form, configured := range d.Forms() {
		if n++; d.Configured(form) != configured {
			t.Errorf("form %q of %q", form, configured)
		}
	}
	if n != 6 {
		t.Errorf("%d forms, want 6", n)
	}
}

func TestFoldDomain(t *testing.T) {
	for _, tc := range []struct {
		name string
		want JID
		ok   bool
	}{
		{"Example.ORG.", "example.org", true},
		{"localhost", "localhost", true},
		{"a_b.example", "a_b.example", true},
		{"[2001:DB8::1]", "[2001:db8::1]", true},
		{"BÜCHER.example.", "bücher.example", true},
		{"bu\u0308cher。example", "bücher.example", true},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example", true},
		{"a_b.bücher.example", "a_b.bücher.example", true},
		{"ｅxample.org", "example.org", true},
		{"straße.example", "straße.example", true},
		{"xn--\u00fc.example", "xn--ü.example", false},
		{"xn--zzzzzzzz.example", "xn--zzzzzzzz.example", false},
		{"ü\u200d.example", "ü\u200d.example", false},
	} {
		got, err := FoldDomain(tc.name)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("FoldDomain(%q) = %q, %v; want %q", tc.name, got, err, tc.want)
		}
	}
	for domain, want := range map[JID]JID{
		"straße.example": "strasse.example", "bücher.example": "bücher.example",
		"example.org": "example.org", "xn--bcher-kva.example": "xn--bcher-kva.example",
	} {
		if got := IDNA2003(domain); got != want {
			t.Errorf("IDNA2003(%q) = %q, want %q", domain, got, want)
		}
	}
}

// A wildcard stands for one label, in either form, and for none that is excepted.
func TestWildcards(t *testing.T) {
	names := Except([]string{"example.org", "*.example.org", "conference.*.Example.net", "*.bücher.example"}, "conference.example.org", "Events.example.org", "muc.*.example.net", "*.old.bücher.example")
	d := NewDomains(names...)
	for address, want := range map[JID]bool{
		"example.org": true, "a.example.org": true, "b.a.example.org": false, ".example.org": false, "example.com": false, "a.example.com": false,
		"conference.example.org": false, "events.example.org": false, "conference.x.example.net": true, "muc.x.example.net": false, "x.example.net": false,
		"a.bücher.example": true, "a.xn--bcher-kva.example": true, "ä.xn--bcher-kva.example": true, "a.old.bücher.example": false,
		"u@a.example.org": false, "a.example.org/r": false, "*.example.org": true, "": false, "org": false, "@.example.org": false,
	} {
		if got := d.Has(address); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
	for address, want := range map[JID]bool{"u@a.example.org/r": true, "u@conference.example.org": false, "room@a.b.example.org": false} {
		if got := d.Of(address); got != want {
			t.Errorf("of %q: %v", address, got)
		}
	}
	if !d.Over("x.y.a.example.org") || d.Configured("a.example.org") != "a.example.org" {
		t.Error("Over and Configured")
	}
	for form := range d.Forms() {
		if form != "example.org" {
			t.Errorf("form %q", form)
		}
	}
	if got := Except([]string{"example.org"}, "x"); len(got) != 1 {
		t.Errorf("without wildcards: %q", got)
	}
	if got := Named([]string{"*.a.b", "a.b", "x.*.a.b"}); len(got) != 1 || got[0] != "a.b" {
		t.Errorf("named: %q", got)
	}
	copied := d
	d.Replace("other.example")
	if copied.Has("a.example.org") || !copied.Has("other.example") {
		t.Error("a copy has not changed")
	}
}
