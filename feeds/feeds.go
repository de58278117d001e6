// Package feeds holds the sources of the modules that run inside XMPP servers, so that the
// program can hand them to operators who have nothing but the program.
package feeds

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed prosody/mod_event_feed.lua prosody/mod_event_feed prosody/README.md
//go:embed ejabberd/src ejabberd/include ejabberd/conf ejabberd/mod_event_feed.spec ejabberd/README.md
var sources embed.FS

// Servers returns the names of the servers that have a module.
func Servers() []string { return []string{"ejabberd", "prosody"} }

// Write writes the module for a server below a directory, which it makes if need be, and
// returns the names of the files. Files that are there already are replaced only if they are
// of the module, so that a newer one can be installed over an older one.
func Write(server, dir string) (names []string, err error) {
	if !slices.Contains(Servers(), server) {
		return nil, fmt.Errorf("there is no module for %q; there is one for %s", server, strings.Join(Servers(), " and for "))
	}
	module, err := fs.Sub(sources, server)
	if err != nil {
		return nil, err
	}
	err = fs.WalkDir(module, ".", func(name string, entry fs.DirEntry, err error) error {
		to := filepath.Join(dir, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		if name == "README.md" {
			to = filepath.Join(dir, "mod_event_feed.md")
		}
		data, err := fs.ReadFile(module, name)
		if err == nil {
			err = replace(to, data)
		}
		names = append(names, to)
		return err
	})
	return names, err
}

// replace writes a file as a whole: a server that loads it meanwhile finds the old one or the
// new one.
func replace(name string, data []byte) error {
	draft, err := os.CreateTemp(filepath.Dir(name), ".mod_event_feed-")
	if err != nil {
		return err
	}
	_, err = draft.Write(data)
	err = errors.Join(err, draft.Chmod(0o644), draft.Close())
	if err == nil {
		err = os.Rename(draft.Name(), name)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(draft.Name()))
	}
	return err
}

// revisions are where each module says which revision it is.
var revisions = map[string]struct {
	file string
	line *regexp.Regexp
}{
	"prosody":  {"prosody/mod_event_feed/feed.lib.lua", regexp.MustCompile(`(?m)^local revision = (\d+);`)},
	"ejabberd": {"ejabberd/include/mod_event_feed.hrl", regexp.MustCompile(`(?m)^-define\(REVISION, (\d+)\)\.`)},
}

// Revision returns the revision of the module for a server. It grows with each change of the
// module. 0 means that there is none.
func Revision(server string) int {
	r, ok := revisions[server]
	if !ok {
		return 0
	}
	data, err := sources.ReadFile(r.file)
	if err != nil {
		return 0
	}
	found := r.line.FindSubmatch(data)
	if found == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(found[1])) // digits
	return n
}
