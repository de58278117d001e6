package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// parcel is the settings of a type that only this test has.
type parcel struct {
	Label  string
	Stops  []string
	Way    string
	Weight int
	Fast   bool
	Within time.Duration
	Most   Size
	Lock   Secret
	extra  []Key
	files  [2]string
}

func (p *parcel) Keys() []Key {
	return append(append([]Key{
		Text("label", &p.Label, "none"), Texts("stops", &p.Stops), Word("way", &p.Way, "road", "road", "rail"),
		Integer("weight", &p.Weight, 5, 1, 9), Boolean("fast", &p.Fast, true), Duration("within", &p.Within, time.Hour, time.Minute), Bytes("most", &p.Most, 4096, 10),
	}, SecretKeys("lock", &p.Lock)...), p.extra...)
}

func (p *parcel) Check(s *Section) {
	p.files = [2]string{s.Resolve("later"), s.Resolve("")}
	s.Require("lock", "write a lock", p.Lock == "")
	if s.Given("fast") && p.Weight > 8 {
		s.Error("weight", "is too much", "send it slowly")
	}
	if p.Way == "rail" {
		s.Warn("", "is late", "leave earlier")
	}
}

const parcelBase = "[component]\nname = 'events.example.org'\nsecret = 'x'\n[general]\nhosts = ['example.org']\n[[destination]]\nname = 'p'\ntype = 'parcel'\nlock = 'hunter2'\n"

func parcelType() Type {
	return DestinationType("parcel", func() Settings { return new(parcel) })
}

func TestOwnType(t *testing.T) {
	c, problems := Parse([]byte(parcelBase), nil, "/etc/x", parcelType())
	if c == nil || len(problems) > 0 {
		t.Fatal(problems)
	}
	want := &parcel{Label: "none", Way: "road", Weight: 5, Fast: true, Within: time.Hour, Most: 4096, Lock: "hunter2", files: [2]string{"/etc/x/later", ""}}
	if diff := cmp.Diff(want, c.Destinations[0].Settings, cmp.AllowUnexported(parcel{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c.Destinations[0].Format != FormatJSON {
		t.Errorf("format %q", c.Destinations[0].Format)
	}
	c, problems = Parse([]byte(parcelBase+"label = 'a'\nstops = ['b', 'c']\nway = 'rail'\nweight = 9\nwithin = '90s'\nmost = '1KiB'\n"), nil, "", parcelType())
	if got := lines(problems); c == nil || got != "warning: destination[1]: is late; leave earlier\n" {
		t.Fatalf("%q", got)
	}
	want = &parcel{Label: "a", Stops: []string{"b", "c"}, Way: "rail", Weight: 9, Fast: true, Within: 90 * time.Second, Most: 1024, Lock: "hunter2", files: [2]string{"later", ""}}
	if diff := cmp.Diff(want, c.Destinations[0].Settings, cmp.AllowUnexported(parcel{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, problems = Parse([]byte(parcelBase+"fast = false\nweight = 9\n"), nil, "", parcelType()); lines(problems) != "error: destination[1].weight: is too much; send it slowly\n" {
		t.Errorf("%q", lines(problems))
	}
	if _, problems = Parse([]byte(parcelBase), nil, ""); !strings.Contains(lines(problems), `"parcel" is not known; write one of http, nats, kafka, rabbit, sns`) {
		t.Errorf("without the type: %q", lines(problems))
	}
}

// Mistakes of the program's author are said at once, whatever the configuration holds.
func TestOwnTypeThatCannotBe(t *testing.T) {
	withKey := func(name string) func() Settings {
		return func() Settings { p := new(parcel); p.extra = []Key{Text(name, &p.Label, "")}; return p }
	}
	for want, own := range map[string]Type{
		`error: destination.type: this program adds a type "http" that cannot be used: its name is empty or taken`:                        DestinationType("http", func() Settings { return new(parcel) }),
		`error: destination.type: this program adds a type "" that cannot be used: its name is empty or taken`:                            DestinationType("", func() Settings { return new(parcel) }),
		`error: destination.type: this program adds a type "x" that cannot be used: its key "events" is one that every type has`:          DestinationType("x", withKey("events")),
		`error: destination.type: this program adds a type "x" that cannot be used: its key "label" is there twice`:                       DestinationType("x", withKey("label")),
		`error: filter.type: this program adds a type "expression" that cannot be used: its name is empty or taken`:                       FilterType("expression", func() Settings { return new(parcel) }),
		`error: filter.type: this program adds a type "x" that cannot be used: its key "priority" is one that every type has`:             FilterType("x", withKey("priority")),
		`error: destination.type: this program adds a type "parcel" that cannot be used: its name is empty or taken; correct it in the p`: parcelType(),
	} {
		if _, problems := Parse([]byte(parcelBase), nil, "", parcelType(), own); !strings.Contains(lines(problems), want) {
			t.Errorf("%q\nwant %q", lines(problems), want)
		}
	}
}
