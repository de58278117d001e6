package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// invoke runs a command as the shell would.
func invoke(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = Main(Process{Args: args, Stdout: &out, Stderr: &errs, Version: "1.2.3"})
	return code, out.String(), errs.String()
}

func write(t *testing.T, toml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const good = `
[component]
name = "events.example.org"
secret = "hunter2"
[general]
hosts = ["example.org"]
[modules.mod_event_pusher.rabbit.presence_exchange]
[outgoing_pools.rabbit.event_pusher]
`

func TestCommands(t *testing.T) {
	for _, tc := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // parts of what is printed
	}{
		{"nothing", nil, 2, "", "usage: eventpusher COMMAND"},
		{"help", []string{"-h"}, 0, "usage: eventpusher COMMAND", ""},
		{"help of a group", []string{"dlq", "-h"}, 0, "usage: eventpusher dlq COMMAND [flags]\n\n  dlq list", ""},
		{"a group alone", []string{"outbox"}, 2, "", "usage: eventpusher outbox COMMAND [flags]\n\n  outbox move"},
		{"unknown command of a group", []string{"dlq", "delete"}, 2, "", `there is no command "dlq delete"`},
		{"show without a number", []string{"dlq", "show"}, 2, "", "say which"},
		{"show a word", []string{"dlq", "show", "x"}, 2, "", "is not the number of a dead letter"},
		{"a time that is none", []string{"dlq", "list", "-since", "noon"}, 2, "", "-since"},
		{"a reason that is none", []string{"dlq", "drop", "-reason", "nope"}, 2, "", "-reason: there is none called \"nope\"; they are permanent, too_large, gone, max_age"},
		{"forget nothing", []string{"outbox", "forget"}, 2, "", "say which"},
		{"unknown command", []string{"start"}, 2, "", `there is no command "start"`},
		{"unknown flag", []string{"run", "-conf", "x"}, 2, "", "-config"},
		{"help by name", []string{"help", "check"}, 0, "", "usage: eventpusher check"},
		{"help of a command", []string{"check", "-h"}, 0, "", "-config"},
		{"stray argument", []string{"run", "config.toml"}, 2, "", "takes no arguments"},
		{"a file to check", []string{"check", "/nonexistent.toml"}, 1, "/nonexistent.toml", ""},
		{"two files to check", []string{"check", "a", "b"}, 2, "", "name one file"},
		{"version", []string{"version"}, 0, "eventpusher 1.2.3, ", ""},
		{"licences", []string{"licences"}, 0, "  github.com/nats-io/nats.go v", ""},
		{"no file to check", []string{"check", "-config", "/nonexistent.toml"}, 1, "/nonexistent.toml", ""},
		{"no file to run", []string{"run", "-config", "/nonexistent.toml"}, 1, "", "/nonexistent.toml"},
		{"negative count", []string{"demo", "-count", "-1"}, 2, "", "-count must not be negative"},
		{"rate too high", []string{"demo", "-rate", "NaN"}, 2, "", "-rate must be above 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := invoke(tc.args...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if !strings.Contains(stdout, tc.stdout) || tc.stdout == "" && stdout != "" {
				t.Errorf("stdout %q, want %q", stdout, tc.stdout)
			}
			if !strings.Contains(stderr, tc.stderr) || tc.stderr == "" && stderr != "" {
				t.Errorf("stderr %q, want %q", stderr, tc.stderr)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name  string
		toml  string
		code  int
		wants []string
	}{
		{"fine", good, 0, []string{"is fine"}},
		{"several problems at once", good + `
[[filter]]
name = "a"
keep = "event.bodi == 'x'"
[[filter]]
name = "b"
priority = 50
[admin]
lisen = "127.0.0.1:9090"
`, 1, []string{"priority", "admin.lisen", "admin.listen", "event.bodi", "event.body", "3 errors"}},
		{"problems of every part at once", `
[component]
nmae = "events.example.org"
tls.cacertfile = "broken.pem"
[[filter]]
keep = "event.bodi == 'x'"
[[filter]]
name = "twice"
[[filter]]
name = "twice"
keep = "event.body"
[[modules.mod_event_pusher.http.handlers]]
path = "s3cret%zz"
callback_module = "my_module"
[outgoing_pools.http.http_pool.connection]
host = "localhost"
[modules.mod_event_pusher.rabbit.presence_exchange]
[outgoing_pools.rabbit.event_pusher.connection.tls]
cacertfile = "broken.pem"
`, 1, []string{
			"component.nmae", "component.secret", "general.hosts", "component: component.tls", "broken.pem",
			"filter[1].name", "event.bodi", "filter[3].name", `filter "twice": keep`,
			"handlers[1].callback_module", "http_pool.connection.host", "handlers[1]: http:", "modules.mod_event_pusher.rabbit: rabbit:",
			"12 errors",
		}},
		{"one backend under two paths", good + `
[[modules.mod_event_pusher.http.handlers]]
path = "s3cret"
[[modules.mod_event_pusher.http.handlers]]
path = "//s3cret"
[outgoing_pools.http.http_pool.connection]
host = "http://localhost"
`, 1, []string{"handlers[2]", "same as an earlier handler", "1 error,"}},
		{"a name that is another's default", good + `
[[modules.mod_event_pusher.http.handlers]]
[[modules.mod_event_pusher.http.handlers]]
name = "http:http_pool"
path = "b"
[outgoing_pools.http.http_pool.connection]
host = "http://localhost"
`, 1, []string{"handlers[2]", `"http:http_pool"`, "handlers[1]", "1 error,"}},
		{"a name that is another backend's", good + `
[[modules.mod_event_pusher.http.handlers]]
name = "rabbit"
[outgoing_pools.http.http_pool.connection]
host = "http://localhost"
`, 1, []string{`handlers[1].name: "rabbit" is the name of another backend`, "1 error,"}},
		{"an expression that does not compile", good + `
[[filter]]
name = "only chat"
keep = "event.bodi == 'x'"
`, 1, []string{"only chat", "keep", "bodi", "event.body", "1 error"}},
		{"an expression that is no condition", good + `
[[filter]]
name = "only chat"
keep = "event.body"
`, 1, []string{"only chat", "keep"}},
		{"a condition of a backend", good + `
[modules.mod_event_pusher.push]
when = "event.kind == 'presence'"
[[modules.mod_event_pusher.http.handlers]]
when = "event.body"
[outgoing_pools.http.http_pool.connection]
host = "http://localhost"
`, 1, []string{"modules.mod_event_pusher.push.when", "is never", "handlers[1].when", "true or false", "2 errors"}},
		{"a reserved key", good + `
[[filter]]
name = "hide"
metadata = { message = "'hidden'" }
`, 1, []string{"hide", "message", "override"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := write(t, tc.toml)
			if err := os.WriteFile(filepath.Join(filepath.Dir(path), "broken.pem"), []byte("no certificate"), 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := invoke("check", "-config", path)
			if code != tc.code {
				t.Errorf("exit code %d, want %d\n%s", code, tc.code, stdout)
			}
			for _, want := range tc.wants {
				if !strings.Contains(stdout, want) {
					t.Errorf("%q is not in the output:\n%s", want, stdout)
				}
			}
			if strings.Contains(stdout+stderr, "hunter2") || strings.Contains(stdout+stderr, "s3cret") {
				t.Errorf("the secret shows:\n%s%s", stdout, stderr)
			}
		})
	}
}

func TestDemoCounts(t *testing.T) {
	code, stdout, stderr := invoke("demo", "-count", "12", "-rate", "200")
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	introduction, events, _ := strings.Cut(stdout, "\n\n")
	page, events, _ := strings.Cut(events, "\n\n")
	if !strings.Contains(introduction, "Ctrl-C") || !regexp.MustCompile(`^The live page: http://127\.0\.0\.1:\d+/$`).MatchString(page) {
		t.Errorf("it begins with\n%s\n\n%s", introduction, page)
	}
	lines := strings.Split(strings.TrimSpace(events), "\n")
	if len(lines) != 12 {
		t.Errorf("%d lines, want 12:\n%s", len(lines), events)
	}
	for _, want := range []string{"alice@example.org is online", "Good morning", "Tea is ready", "Milk & sugar < 2 spoons?", "sessions=2"} {
		if !strings.Contains(events, want) {
			t.Errorf("%q is missing:\n%s", want, events)
		}
	}
	if strings.Contains(events, "Mallory") {
		t.Errorf("the forged message made an event:\n%s", events)
	}
}

func TestHealth(t *testing.T) {
	if code, _, stderr := invoke("health", "-config", write(t, good)); code != 1 || !strings.Contains(stderr, "[admin]") {
		t.Errorf("without a listener: exit code %d, %s", code, stderr)
	}
	const address = "127.0.0.1:1"
	toml := good + fmt.Sprintf("[admin]\nlisten = %q\n", address)
	if code, _, stderr := invoke("health", "-config", write(t, toml)); code != 1 || !strings.Contains(stderr, address) {
		t.Errorf("nobody there: exit code %d, %s", code, stderr)
	}
}
