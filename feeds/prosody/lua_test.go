//go:build linux

package prosody_test

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// The parts that need no server: the ring against a model, the file cut at each
// byte, the serialiser.
func TestLua(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("lua5.4", "testdata/unit.lua", filepath.Join(t.TempDir(), "feed.dat")).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
