package config

import (
	"os"
	"path/filepath"
	"testing"
)

// Examine gives what could be read of a file that Load refuses.
func TestExamine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	for _, tt := range []struct {
		name, file   string
		read, loaded bool
	}{
		{"fine", minimal, true, true},
		{"with an error", minimal + "[log]\nlevel = 'loud'\n[[filter]]\nname = 'a'\nkeep = 'true'\n", true, false},
		{"no TOML", "[", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			c, problems := Examine(path, nil)
			loaded, same := Load(path, nil)
			if (c != nil) != tt.read || (loaded != nil) != tt.loaded || lines(problems) != lines(same) {
				t.Errorf("examined: %v, loaded: %v\n%s\n%s", c != nil, loaded != nil, lines(problems), lines(same))
			}
			if tt.read && (c.Component.Secret.Reveal() != "hunter2-component" || c.Log.Format != "text") {
				t.Errorf("%+v", c)
			}
			if tt.read && !tt.loaded && (len(c.Filters) != 1 || c.Filters[0].Keep != "true") {
				t.Errorf("filters %+v", c.Filters)
			}
		})
	}
	if c, problems := Examine(path+".none", nil); c != nil || len(problems) != 1 {
		t.Errorf("%v, %v", c, problems)
	}
}

func TestHasError(t *testing.T) {
	problems := []Problem{{Severity: Error, Path: "a.b.c"}, {Severity: Error, Path: "x[1].y"}, {Severity: Warning, Path: "w"}}
	for section, want := range map[string]bool{"a": true, "a.b": true, "a.b.c": true, "a.b.c.d": false, "a.bb": false, "x": true, "x[1]": true, "x[2]": false, "w": false} {
		if got := HasError(problems, section); got != want {
			t.Errorf("HasError(%q) = %t", section, got)
		}
	}
}
