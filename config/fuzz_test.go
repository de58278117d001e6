package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzParse: whatever the file and one variable contain, Parse does not panic, the
// Config is nil if and only if there is an Error, every error names a remedy, every
// line is one line, and the second time says the same.
func FuzzParse(f *testing.F) {
	seeds, _ := filepath.Glob("testdata/*/*.toml")
	for _, seed := range append(seeds, exampleFile) {
		data, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "EVENTPUSHER_COMPONENT_SECRET=s")
	}
	f.Add([]byte(minimal), "EVENTPUSHER_COMPONENT_MAX_DEPTH=9")
	f.Add([]byte("component.name = 1979-05-27\ncomponent.secret = inf\n[general]\nhosts = [[]]"), "EVENTPUSHER_")
	f.Add([]byte("[outgoing_pools.http.\"\"]\n[outgoing_pools.http.\"a\\n::B\".connection]\nhost = 'http://x'"), "EVENTPUSHER_\xff=1")
	f.Fuzz(func(t *testing.T, data []byte, variable string) {
		if strings.Contains(string(data)+variable, "_file") {
			t.Skip("would read files of this machine")
		}
		c, problems := Parse(data, []string{variable}, "")
		refused := slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error })
		if (c == nil) != refused {
			t.Fatalf("Config is nil: %v, an error: %v\n%s", c == nil, refused, lines(problems))
		}
		for _, p := range problems {
			if strings.ContainsAny(p.String(), "\n\r\x00") {
				t.Errorf("more than a line: %q", p)
			}
			if p.Severity != Note && p.Remedy == "" {
				t.Errorf("no remedy: %v", p)
			}
		}
		if _, again := Parse(data, []string{variable}, ""); !slices.Equal(problems, again) {
			t.Errorf("first:\n%sthen:\n%s", lines(problems), lines(again))
		}
	})
}
