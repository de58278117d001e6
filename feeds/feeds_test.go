package feeds

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A module that differs from the one of its revision needs a new revision, or operators are
// not told that theirs is old.
func TestRevisions(t *testing.T) {
	data, err := os.ReadFile("testdata/revisions")
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range Servers() {
		sum := sha256.New()
		err := fs.WalkDir(sources, server, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(name, ".md") {
				return err
			}
			text, err := sources.ReadFile(name)
			fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if Revision(server) == 0 {
			t.Errorf("%s: no revision", server)
		}
		if line := fmt.Sprintf("%s %d %x\n", server, Revision(server), sum.Sum(nil)); !strings.Contains(string(data), line) {
			t.Errorf("the module for %s has changed: raise its revision (%s), and replace its line in testdata/revisions by\n%s", server, revisions[server].file, line)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	for range 2 { // the second time over the first
		names, err := Write("prosody", dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "mod_event_feed.lua"))
		want, _ := os.ReadFile("prosody/mod_event_feed.lua")
		if err != nil || string(got) != string(want) || len(names) < 10 {
			t.Errorf("%d files, %v", len(names), err)
		}
		found, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(found) != 3 {
			t.Errorf("written: %q %v", found, err)
		}
	}
	if _, err := Write("openfire", dir); err == nil || !strings.Contains(err.Error(), "prosody") {
		t.Errorf("openfire: %v", err)
	}
}
