package config

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

const referenceFile = "../docs/configuration.md"

var (
	sectionLine = regexp.MustCompile(`^#?(\[\[?[^ ]+\]\]?)\s*(?:# ?(.*))?$`)
	keyLine     = regexp.MustCompile(`^#?([a-z_.]+) = (.*?)\s*(?:# (.*))?$`)
)

// TestReference: docs/configuration.md is made of config.toml.example, which other tests hold
// against the configuration's types.
func TestReference(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	want := reference(string(data))
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil || string(got) != want {
		t.Errorf("docs/configuration.md is not that of config.toml.example; write it anew: go test ./config -run TestReference -update (%v)", err)
	}
	if n := strings.Count(want, "\n| `"); n < 150 {
		t.Errorf("it has %d keys", n)
	}
}

// reference lays the example out as a page: a table for each section.
func reference(example string) string {
	var out strings.Builder
	out.WriteString("# Configuration\n\nEvery key of `config.toml`, as [config.toml.example](../config.toml.example) has it, which is more convenient to copy from. This page is made of that file; do not edit it.\n")
	var prose []string
	table, seen := false, false
	flush := func() {
		if len(prose) > 0 {
			// An empty line of the file is an empty word here.
			fmt.Fprintf(&out, "\n%s\n", strings.ReplaceAll(strings.TrimSpace(strings.Join(prose, " ")), "  ", "\n\n"))
		}
		prose, table = nil, false
	}
	for line := range strings.Lines(example) {
		line = strings.TrimSpace(line)
		section, key := sectionLine.FindStringSubmatch(line), keyLine.FindStringSubmatch(line)
		switch {
		case section != nil:
			said := prose
			prose = nil
			fmt.Fprintf(&out, "\n## `%s`\n", section[1])
			prose = said
			flush()
			seen = true
		case key != nil && seen:
			if len(prose) > 0 {
				flush()
			}
			if !table {
				out.WriteString("\n| key | default | |\n|---|---|---|\n")
				table = true
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s |\n", key[1], defaultOf(key[2], key[3]), meaning(key[3]))
		case strings.HasPrefix(line, "# ---"):
			flush()
		case line == "" || line == "#":
			if len(prose) > 0 {
				prose = append(prose, "")
			}
		case strings.HasPrefix(line, "# "):
			prose = append(prose, strings.ReplaceAll(strings.TrimPrefix(line, "# "), "|", `\|`))
		}
	}
	flush()
	return out.String()
}

// defaultOf says what holds without the key, or shows an example.
func defaultOf(value, comment string) string {
	value = "`" + strings.ReplaceAll(value, "|", `\|`) + "`"
	if strings.HasPrefix(comment, "example") || strings.HasPrefix(comment, "EDIT") {
		return "none; such as " + value
	}
	return value
}

// meaning is the comment without the mark of an example.
func meaning(comment string) string {
	for _, mark := range []string{"example; ", "example", "EDIT: ", "EDIT"} {
		comment = strings.TrimPrefix(comment, mark)
	}
	return strings.ReplaceAll(strings.TrimSpace(comment), "|", `\|`)
}
