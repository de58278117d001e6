package notices

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write NOTICE anew")

// linked is a package that is linked into the program, as go list has it.
type linked struct {
	ImportPath, Dir string
	Standard        bool
	Module          *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// TestNotice: NOTICE has the licence of each module that is linked in, of these versions.
func TestNotice(t *testing.T) {
	texts := make(map[string][]string) // whose they are, by text
	standard := false
	for _, arch := range []string{"amd64", "arm64"} {
		for _, p := range list(t, arch) {
			switch {
			case p.Standard:
				standard = true
			case !p.Module.Main:
				collect(t, texts, p.Module.Path+" "+p.Module.Version, p.Module.Dir, p.Dir)
			}
		}
	}
	if standard {
		root := goroot(t)
		collect(t, texts, "the Go standard library", root, root)
	}
	own, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	fmt.Fprintf(&want, "eventpusher is under this licence.\n\n%s\n", bytes.TrimSpace(own))
	var order []string
	for text, whose := range texts {
		slices.Sort(whose)
		order = append(order, text)
	}
	slices.SortFunc(order, func(a, b string) int {
		return cmp.Or(slices.Compare(texts[a], texts[b]), cmp.Compare(a, b))
	})
	for _, text := range order {
		fmt.Fprintf(&want, "\n%s\n\nIt contains what is under the following licence or has the following notice:\n\n", strings.Repeat("=", 80))
		for _, one := range texts[text] {
			fmt.Fprintf(&want, "  %s\n", one)
		}
		fmt.Fprintf(&want, "\n%s\n", text)
	}
	if *update {
		if err := os.WriteFile("NOTICE", want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if Text != want.String() {
		t.Error("NOTICE is not that of the modules that are linked in; write it anew: go test ./internal/notices -update")
	}
}

// list returns the packages of the program.
func list(t *testing.T, arch string) (all []linked) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Standard,Module", ".")
	cmd.Dir, cmd.Stderr = "../..", os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p linked
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func goroot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

var legal = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)(\b|[-_.])`)

// collect adds the legal texts between a package and the root of its module.
func collect(t *testing.T, texts map[string][]string, whose, root, dir string) {
	t.Helper()
	found := false
	for ; ; dir = filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.IsDir() || !legal.MatchString(entry.Name()) || strings.HasSuffix(entry.Name(), ".go") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			found = true
			clean := strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n"))
			if !slices.Contains(texts[clean], whose) {
				texts[clean] = append(texts[clean], whose)
			}
		}
		if dir == root {
			break
		}
	}
	if !found {
		t.Errorf("%s has no licence", whose)
	}
}
