package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

// loadGolden reads testdata/golden.txt: what arrived at each service, by step.
func loadGolden(t *testing.T) map[string][]string {
	t.Helper()
	f, err := os.Open("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	golden := make(map[string][]string)
	step := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "## "):
			step, _, _ = strings.Cut(line[3:], " ")
			golden[step] = nil
		case strings.HasPrefix(line, "#"), line == "":
		default:
			golden[step] = append(golden[step], canonicalLine(t, line))
		}
	}
	if len(golden) < 40 {
		t.Fatalf("only %d steps in the golden file", len(golden))
	}
	return golden
}

// canonicalLine rewrites the JSON at the end of a golden line, so that equal
// values are equal text.
func canonicalLine(t *testing.T, line string) string {
	t.Helper()
	at := strings.IndexAny(line, "{[")
	return line[:at] + canonicalJSON(t, []byte(line[at:]))
}

// canonicalJSON sorts keys. A carriage return becomes a line feed: an XML parser
// normalises line ends (XML 1.0 section 2.11), which only MongooseIM's does not,
// and no server escapes a CR when it hands a stanza on.
func canonicalJSON(t *testing.T, data []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("not JSON: %s: %v", data, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(`\r\n`, `\n`, `\r`, `\n`).Replace(string(out))
}

// The lines by which what arrived is compared with the golden file.

func rabbitLine(t *testing.T, exchange, key string, payload []byte) string {
	return fmt.Sprintf("RABBIT %s %s %s", exchange, key, canonicalJSON(t, payload))
}

func snsLine(t *testing.T, topic, message string) string {
	return fmt.Sprintf("SNS %s %s", topic, canonicalJSON(t, []byte(message)))
}

func httpLine(t *testing.T, form url.Values) string {
	fields := make([]string, 0, 4)
	for _, k := range []string{"author", "server", "receiver", "message"} {
		fields = append(fields, form.Get(k))
	}
	for k := range form {
		if !slices.Contains([]string{"author", "server", "receiver", "message"}, k) {
			t.Errorf("form field %q is not one of MongooseIM's", k)
		}
	}
	data, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return "HTTP " + canonicalJSON(t, data)
}
