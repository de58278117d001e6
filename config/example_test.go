package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

const exampleFile = "../config.toml.example"

// offered is a key that the example shows without setting it: #key = value, or
// #[section].
var offered = regexp.MustCompile(`^#(\[|[a-z_.]+ = )`)

// exampleTree is the example with every key set, and the set of keys whose value is
// marked as no default.
func exampleTree(t *testing.T) (tree map[string]any, noDefault map[string]bool) {
	t.Helper()
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	noDefault = make(map[string]bool)
	section := ""
	all := strings.Split(string(data), "\n")
	for i, line := range all {
		if offered.MatchString(line) {
			line = line[1:]
			all[i] = line
		}
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
		}
		key, rest, isKey := strings.Cut(line, " = ")
		if isKey && !strings.HasPrefix(line, "#") && (strings.Contains(rest, "# EDIT") || strings.Contains(rest, "# example")) {
			noDefault[section+"."+key] = true
		}
	}
	if err := toml.Unmarshal([]byte(strings.Join(all, "\n")), &tree); err != nil {
		t.Fatalf("with every key set: %v", err)
	}
	return tree, noDefault
}

// The example is ready for a first start, but for its secret.
func TestExampleLoads(t *testing.T) {
	c, problems := loadAnywhere(exampleFile)
	if c == nil || len(problems) != 1 || !strings.HasPrefix(problems[0].String(), "warning: component.secret: is the secret that the documentation shows") {
		t.Fatalf("problems:\n%s", lines(problems))
	}
	if len(c.Pusher.HTTP.Handlers) != 1 {
		t.Errorf("modules %+v, want one handler", c.Pusher)
	}
}

// The example shows no key that does not exist, and no value that is not allowed.
func TestExampleIsKnown(t *testing.T) {
	tree, _ := exampleTree(t)
	var c checker
	root := field{unknown: (*checker).foreignSection}
	c.table(nil, tableFields{fields: new(Config).fields(nil)}, tree, &root)
	if len(c.list) > 0 || len(c.ignored) > 0 || len(c.ignoredGeneral) > 0 {
		t.Errorf("problems:\n%signored: %q %q", lines(c.list), c.ignored, c.ignoredGeneral)
	}
}

// The example shows every key there is, with its default or marked as having none.
func TestExampleShowsEveryKey(t *testing.T) {
	tree, noDefault := exampleTree(t)
	seen := compareExample(t, nil, new(Config).fields(nil), tree, noDefault)
	if seen < 150 {
		t.Errorf("compared %d keys, want at least 150", seen)
	}
}

func compareExample(t *testing.T, at keyPath, fields []field, shown map[string]any, noDefault map[string]bool) (seen int) {
	t.Helper()
	for _, f := range fields {
		path := at.with(f.name)
		value, ok := shown[f.name]
		if !ok {
			t.Errorf("%s is missing", path)
			continue
		}
		seen++
		switch f.shape {
		case taggedShape:
			for tag, entries := range value.(map[string]any) {
				seen += compareExample(t, path.with(tag), f.fields(), entries.(map[string]any), noDefault)
			}
		case listShape:
			if f.variant != nil {
				for _, item := range value.([]any) {
					known, _, _ := f.variant(item.(map[string]any))
					seen += compareExample(t, path, known, item.(map[string]any), noDefault)
				}
				continue
			}
			seen += compareExample(t, path, f.fields(), value.([]any)[0].(map[string]any), noDefault)
		case tableShape, sectionShape:
			seen += compareExample(t, path, f.fields(), value.(map[string]any), noDefault)
		default:
			marked := noDefault[path.String()]
			switch {
			case marked:
			case f.def == nil:
				t.Errorf("%s has no default, mark it as an example", path)
			case !reflect.DeepEqual(value, f.def):
				t.Errorf("%s is shown as %v, the default is %v", path, value, f.def)
			}
		}
	}
	return seen
}
