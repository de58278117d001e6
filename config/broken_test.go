package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// loadAnywhere is Load, without what depends on the modes of the files of a checkout.
func loadAnywhere(file string) (*Config, []Problem) {
	c, problems := Load(file, nil)
	return c, slices.DeleteFunc(problems, func(p Problem) bool {
		return p.Path == file && strings.HasSuffix(p.Text, "by every user of this machine")
	})
}

// Each testdata/broken/NAME.toml is refused with exactly the lines of NAME.txt, and
// every error names a remedy.
func TestBrokenConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/broken/*.toml")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d broken configurations, want at least 20 (%v)", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".toml")
		t.Run(name, func(t *testing.T) {
			c, problems := loadAnywhere(file)
			if c != nil {
				t.Error("a configuration came out")
			}
			var got strings.Builder
			for _, p := range problems {
				got.WriteString(p.String() + "\n")
				if p.Severity == Error && p.Remedy == "" {
					t.Errorf("no remedy: %v", p)
				}
			}
			if strings.Contains(got.String(), "hunter2") {
				t.Errorf("a secret is shown:\n%s", &got)
			}
			golden := strings.TrimSuffix(file, ".toml") + ".txt"
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
