package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventpusher/internal/xmppserver"
)

// patience is how long a busy machine may take.
const patience = 2 * time.Minute

// outside builds the example as the colleague of an operator would: in a module of its own,
// where Go refuses every package of eventpusher's under internal.
func outside(t *testing.T) (program string) {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		if !strings.HasSuffix(name, "_test.go") {
			copyFile(t, name, filepath.Join(dir, name))
		}
	}
	copyFile(t, filepath.Join(root, "go.sum"), filepath.Join(dir, "go.sum"))
	module, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	module = bytes.Replace(module, []byte("module eventpusher\n"), []byte("module example.org/custom\n"), 1)
	module = fmt.Appendf(module, "\nrequire eventpusher v0.0.0\n\nreplace eventpusher => %s\n", root)
	write(t, filepath.Join(dir, "go.mod"), string(module))
	program = filepath.Join(dir, "custom")
	build := exec.Command("go", "build", "-mod=mod", "-o", program, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=", "GOPROXY=off", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(data))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// configuration has the filter and the destination of the example. The directory is that of
// config.toml.
func configuration(server, filter, destination string) string {
	return fmt.Sprintf(`
[component]
address = %q
name = "events.example.org"
secret = "a secret of the component"

[general]
hosts = ["example.org"]

[[filter]]
name = "who"
type = "pseudonym"
%s

[[destination]]
name = "archive"
type = "file"
format = "template"
template = '{"user": {{json (index .metadata "user_pseudonym")}}, "sort": {{json .sort}}}'
%s
`, server, filter, destination)
}

// command runs the program in dir to its end and returns what it has written.
func command(t *testing.T, program, dir string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestCustom(t *testing.T) {
	program := outside(t)
	t.Run("check", func(t *testing.T) { testCheck(t, program) })
	t.Run("send", func(t *testing.T) { testSend(t, program) })
	t.Run("run", func(t *testing.T) { testRun(t, program) })
}

// testCheck: keys of the program's own types are checked as those of eventpusher's.
func testCheck(t *testing.T, program string) {
	const goodFilter, goodFile = `key_file = "pseudonym.key"`, `path = "events.jsonl"`
	for _, tc := range []struct{ name, filter, destination, want string }{
		{"fine", goodFilter, goodFile, "config.toml is fine"},
		{"nothing given", "", "", "error: filter[1].key: missing or empty; write key_file"},
		{"nothing given of the file", goodFilter, "", "error: destination[1].path: missing or empty; write path ="},
		{"unknown key", goodFilter, goodFile + "\nsinc = true", "error: destination[1].sinc: unknown key; did you mean destination[1].sync?"},
		{"key of another type", goodFilter, goodFile + "\nurl = 'http://localhost'", `destination[1].url: unknown key; it is no key of type "file": remove it`},
		{"key of expressions", goodFilter + "\nkeep = 'true'", goodFile, `filter[1].keep: unknown key; it is no key of type "pseudonym": remove it`},
		{"type of a value", goodFilter, goodFile + "\nsync = 'yes'", "error: destination[1].sync: is a string; write true or false"},
		{"range of a value", goodFilter + "\ndigits = 65", goodFile, "error: filter[1].digits: is 65; write 64 or less"},
		{"several keys", `key = "gu3ss"`, goodFile, "error: filter[1].key: is short enough to be guessed"},
		{"no such type", goodFilter, goodFile + "\n[[destination]]\nname = 'x'\ntype = 'flie'", "write one of http, nats, kafka, rabbit, sns, file"},
		{"a form that MongooseIM has not", goodFilter, strings.Replace(goodFile, "path", "events = ['chat.inn']\npath", 1), `error: destination[1].events: item 1 "chat.inn" is no sort of events`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "pseudonym.key"), "0123456789abcdef0123456789abcdef")
			write(t, filepath.Join(dir, "config.toml"), configuration("localhost:5347", tc.filter, tc.destination))
			out, err := command(t, program, dir, "check")
			if fine := tc.name == "fine"; fine != (err == nil) || !strings.Contains(out, tc.want) {
				t.Errorf("%v\n%s\nwant %q", err, out, tc.want)
			}
			if strings.Contains(out, "0123456789") || strings.Contains(out, "gu3ss") {
				t.Errorf("the key is shown:\n%s", out)
			}
			if _, err := os.Stat(filepath.Join(dir, "events.jsonl")); err == nil {
				t.Error("check has created the file")
			}
		})
	}
}

// testSend: every command works with the program's own types.
func testSend(t *testing.T, program string) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.toml"), configuration("localhost:5347", `key = "0123456789abcdef"`, `path = "events.jsonl"`))
	if out, err := command(t, program, dir, "send", "-to", "archive", "-kind", "chat.in"); err != nil || !strings.Contains(out, "archive has taken it") {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := lines(t, filepath.Join(dir, "events.jsonl")); len(got) != 1 || got[0]["sort"] != "chat.in" {
		t.Errorf("%v", got)
	}
	if out, err := command(t, program, dir, "version"); err != nil || !strings.HasPrefix(out, "eventpusher custom 1.0") {
		t.Errorf("%v %q", err, out)
	}
}

// testRun: a stanza of the server becomes a line, without the user's name and always under
// the same pseudonym.
func testRun(t *testing.T, program string) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.example.org", Secret: "a secret of the component", Hosts: []string{"example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.toml"), configuration(server.Addr(), `key = "0123456789abcdef"`, `path = "events.jsonl"`))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	daemon := exec.CommandContext(ctx, program, "run")
	daemon.Dir = dir
	var log bytes.Buffer
	daemon.Stderr = &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait(); cancel() }()
	session, err := server.Accept(ctx)
	if err != nil {
		cancel()
		<-ended
		t.Fatalf("%v\n%s", err, &log)
	}
	for _, id := range []string{"m1", "m2"} {
		if err := session.Send("<message from='example.org' to='events.example.org'><forwarded xmlns='urn:xmpp:forward:0'>" +
			"<message xmlns='jabber:client' type='chat' from='alice@example.org/phone' to='bob@example.net' id='" + id + "'><body>secret words</body></message>" +
			"</forwarded></message>"); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "events.jsonl")
	var got []map[string]string
	for len(got) < 2 && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		got = lines(t, path)
	}
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, &log)
	}
	if len(got) != 2 || got[0]["sort"] != "chat.in" || got[0]["user"] == "" || len(got[0]["user"]) != 16 || got[0]["user"] != got[1]["user"] {
		t.Errorf("%v\n%s", got, &log)
	}
	for _, one := range got {
		if strings.Contains(fmt.Sprint(one), "alice") {
			t.Errorf("the name of the user is shown: %v", one)
		}
	}
}

// lines reads what the destination has written, none if there is no file.
func lines(t *testing.T, path string) (all []map[string]string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		var one map[string]string
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, one)
	}
	return all
}
