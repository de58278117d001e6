package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/viper"
)

// Load reads the file at path and the variables of env that start with
// EVENTPUSHER_ (in the form of os.Environ), which win over the file.
//
// It returns every problem at once, errors first, in an order that depends on the
// input only. The Config is nil if and only if one of them is an Error.
// File names in the file are relative to its directory, except outbox.path. own are the
// types that the program adds to those of eventpusher.
func Load(path string, env []string, own ...Type) (*Config, []Problem) {
	return whole(Examine(path, env, own...))
}

// Examine is Load for looking for more problems: in spite of errors it returns what
// could be read, with defaults in place of what could not and nothing in place of
// required keys that are missing. The Config is nil only if the file cannot be read
// or is no TOML, and fit to run only if no problem is an Error.
func Examine(path string, env []string, own ...Type) (*Config, []Problem) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, []Problem{{Error, path, "cannot read the configuration: " + reason(err), readRemedy(err)}}
	}
	return parse(data, env, filepath.Dir(path), path, own)
}

// Parse does what Load does with what a file contains; dir is the directory that
// file names are relative to.
func Parse(data []byte, env []string, dir string, own ...Type) (*Config, []Problem) {
	return whole(parse(data, env, dir, "", own))
}

// whole withholds a configuration with errors.
func whole(c *Config, problems []Problem) (*Config, []Problem) {
	if slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error }) {
		return nil, problems
	}
	return c, problems
}

// Default returns the configuration of an empty file. It lacks what has no
// default, so it is a start for tests and not fit to run.
func Default() Config {
	var c Config
	l := newLoader("")
	l.fill(nil, c.fields(nil))
	return c
}

func parse(data []byte, env []string, dir, name string, own []Type) (*Config, []Problem) {
	var tree map[string]any
	if err := toml.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &tree); err != nil {
		return nil, []Problem{syntaxProblem(name, err)}
	}
	var c Config
	l := newLoader(dir)
	l.own = l.checkTypes(own)
	fields := c.fields(l.own)
	root := field{unknown: (*checker).foreignSection}
	l.clean = l.table(nil, tableFields{fields: fields}, tree, &root)
	l.merge(env, variables(nil, fields, l.clean))
	l.fill(nil, fields)
	l.noteIgnored()
	l.validate(&c)
	if name != "" {
		l.exposed(name, name, l.holdsSecrets)
	}
	return &c, l.sorted()
}

// loader puts the layers together - environment over file over defaults - and
// fills the structs.
type loader struct {
	checker
	dir     string
	clean   map[string]any // the usable part of the file, case kept
	layers  *viper.Viper
	fromEnv map[string]bool // paths that the environment sets
	// holdsSecrets says that the file itself has secrets.
	holdsSecrets bool
	own          []Type // that the program adds
}

func newLoader(dir string) *loader {
	return &loader{
		dir:     dir,
		layers:  viper.NewWithOptions(viper.KeyDelimiter(delimiter)),
		fromEnv: make(map[string]bool),
	}
}

// merge hands both layers to viper. Variables are set one by one because viper can
// only bind those of its own process, and because it would keep a file's type.
func (l *loader) merge(env []string, known []variable) {
	if err := l.layers.MergeConfigMap(escapeKeys(l.clean)); err != nil {
		l.errorf("", "cannot be merged: "+err.Error(), "report this as a defect of eventpusher")
	}
	l.environment(env, known, func(path keyPath, v any) {
		l.fromEnv[path.String()] = true
		l.layers.Set(path.viperKey(), v)
	})
}

func escapeKeys(table map[string]any) map[string]any {
	out := make(map[string]any, len(table))
	for name, v := range table {
		if entries, ok := v.(map[string]any); ok {
			v = escapeKeys(entries)
		}
		out[escapeKey(name)] = v
	}
	return out
}

// given reports whether the file or the environment has the key or table.
func (l *loader) given(path ...string) bool {
	return l.layers.IsSet(keyPath(path).viperKey())
}

// fill stores the value of every field, from the highest layer that has one.
func (l *loader) fill(at keyPath, fields []field) {
	for i := range fields {
		f := &fields[i]
		here := at.with(f.name)
		switch {
		case f.secret != nil:
			l.fillSecret(here, f)
		case f.shape.scalar():
			v := l.layers.Get(here.viperKey())
			if v == nil {
				v = f.def
			}
			if v != nil {
				f.store(v)
			}
		case f.shape == tableShape, f.shape == sectionShape && l.given(here...):
			l.fillTable(here, f, f.name)
		case f.shape == taggedShape, f.shape == listShape:
			for _, name := range l.names(here) {
				l.fillTable(here.with(name), f, name)
			}
		case f.shape == formulasShape:
			for _, name := range l.names(here) {
				l.fillTable(here, f, name)
			}
		}
	}
}

func (l *loader) fillTable(at keyPath, f *field, name string) {
	if f.variant != nil {
		fields, _, done := f.variant(l.entries(at))
		l.fill(at, fields)
		done()
		return
	}
	fields, done := f.open(name)
	l.fill(at, fields)
	done()
}

// entries returns a table of the file, as far as it is usable.
func (l *loader) entries(at keyPath) map[string]any {
	table := l.clean
	for _, name := range at {
		table, _ = table[name].(map[string]any)
	}
	return table
}

// names lists the operator's own names in a table of the file: tags, metadata keys,
// or positions of an array, in the order of the file.
func (l *loader) names(at keyPath) []string {
	table := l.entries(at)
	return slices.SortedFunc(maps.Keys(table), func(a, b string) int {
		if strings.HasPrefix(a, "[") && strings.HasPrefix(b, "[") && len(a) != len(b) {
			return len(a) - len(b) // [9] before [10]
		}
		return strings.Compare(a, b)
	})
}

// fillSecret reads the file that a _file key names. A secret given twice is an
// error, unless one of the two comes from the environment: that one wins.
func (l *loader) fillSecret(at keyPath, f *field) {
	file, _ := l.layers.Get(at.viperKey()).(string)
	twin := at[:len(at)-1].with(strings.TrimSuffix(f.name, "_file"))
	if file == "" {
		if l.given(twin...) {
			l.secretIn(twin, *f.secret, !l.fromEnv[twin.String()])
		}
		return
	}
	if l.given(twin...) {
		switch fileEnv, twinEnv := l.fromEnv[at.String()], l.fromEnv[twin.String()]; {
		case fileEnv == twinEnv:
			l.errorf(at.String(), "is given beside "+twin.String(), "remove one of the two")
			return
		case twinEnv:
			return
		}
	}
	contents, err := l.readSecret(file)
	if err != nil {
		l.errorf(at.String(), err.Error(), readRemedy(err))
		l.settle(twin.String())
		return
	}
	if odd := oddText(string(contents)); odd != "" {
		l.warn(at.String(), l.resolve(file)+" "+odd, "write the file anew, as UTF-8 without anything but the secret")
	}
	l.publicSecret(at, contents)
	l.secretFile(at.String(), l.resolve(file))
	*f.secret = contents
}

// oddText says what an editor or a shell has left in a secret that nobody sees; empty if
// there is nothing.
func oddText(text string) string {
	switch {
	case strings.HasPrefix(text, "\xff\xfe"), strings.HasPrefix(text, "\xfe\xff"):
		return "is in UTF-16, and is used byte by byte"
	case strings.Contains(text, "\x00"):
		return "contains NUL bytes"
	case strings.Contains(strings.TrimSpace(text), "\n"):
		return "" // a key in several lines, where blanks around it do no harm
	case strings.TrimSpace(text) != text:
		return "has blanks or line ends around the secret, which belong to it"
	}
	return ""
}

// readSecret returns what a file contains, without a byte order mark and without one final
// newline.
func (l *loader) readSecret(name string) (Secret, error) {
	const most = 64 << 10 // no secret is longer, and a device has no end
	path := l.resolve(name)
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", path, unwrapPath(err))
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read %s: %w", path, unwrapPath(err))
	case len(data) > most:
		return "", fmt.Errorf("%s is longer than %d bytes", path, most)
	}
	text := strings.TrimPrefix(string(data), "\ufeff") // the mark that editors of Windows leave
	text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	if text == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return Secret(text), nil
}

// resolve makes a file name absolute to the directory of the configuration.
func (l *loader) resolve(name string) string {
	if filepath.IsAbs(name) || l.dir == "" {
		return name
	}
	return filepath.Join(l.dir, name)
}

// unwrapPath leaves the reason of a file error, which names its path itself.
func unwrapPath(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

func reason(err error) string { return unwrapPath(err).Error() }

func readRemedy(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "check the name, or create the file"
	case errors.Is(err, fs.ErrPermission):
		return "let the user that runs eventpusher read it"
	}
	return "check that it is a readable file with contents"
}

// offender is the part of go-toml's messages that quotes a character of the file,
// or a number: it may be part of a secret that lacks its quotes.
var offender = regexp.MustCompile(`( but got)? U\+[0-9A-F]+( '.')?|: strconv\..*`)

func syntaxProblem(name string, err error) Problem {
	p := Problem{Error, name, "is not valid TOML: " + err.Error(), "correct the syntax; strings stand in quotes"}
	var syntax *toml.DecodeError
	if errors.As(err, &syntax) {
		line, column := syntax.Position()
		text := strings.TrimPrefix(offender.ReplaceAllString(syntax.Error(), ""), "toml: ")
		p.Text = fmt.Sprintf("line %d, column %d: not valid TOML: %s", line, column, text)
	}
	return p
}
