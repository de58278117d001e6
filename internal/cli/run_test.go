package cli

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventpusher/internal/xmppserver"
)

// TestReload: the command and SIGHUP reload a running instance, and say why a file is refused.
func TestReload(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.example.org", Secret: "hunter2", Hosts: []string{"example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	t.Chdir(t.TempDir())
	destination := func(name string) string {
		return "[[destination]]\nname = '" + name + "'\ntype = 'http'\nurl = 'http://127.0.0.1:1/'\n"
	}
	write := func(more ...string) {
		t.Helper()
		text := "[component]\naddress = '" + server.Addr() + "'\nname = 'events.example.org'\nsecret = 'hunter2'\n[general]\nhosts = ['example.org']\n" + strings.Join(more, "")
		if err := os.WriteFile("config.toml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(destination("one"))
	if code, _, stderr := invoke("reload"); code != exitFailed || !strings.Contains(stderr, "no instance answers in the outbox outbox") {
		t.Errorf("without an instance: %d, %s", code, stderr)
	}
	var log logged
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- runDaemon(ctx, Process{Stderr: &log, Version: "test"}, options{config: "config.toml"})
	}()
	seen := func(part string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !strings.Contains(log.String(), part); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%q is not logged:\n%s", part, log.String())
			}
		}
	}
	seen("msg=starting")
	write(destination("one"), destination("two"))
	if code, stdout, stderr := invoke("reload"); code != exitOK || stdout != "reloaded\n" || stderr != "" {
		t.Errorf("%d, %s%s", code, stdout, stderr)
	}
	seen("new_or_changed=[two]")
	write(destination("one"), "[[destination]]\nname = 'two'\ntyp = 'http'\n")
	code, stdout, stderr := invoke("reload")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "error: destination[2].typ: unknown key") || !strings.Contains(stderr, "the one from before holds") {
		t.Errorf("%d, %s%s", code, stdout, stderr)
	}
	seen("did you mean destination[2].type?")
	if err := os.WriteFile("config.toml", []byte("[["), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := invoke("reload"); code != exitFailed || !strings.Contains(stderr, "not valid TOML") || !strings.Contains(stderr, "the one from before holds") {
		t.Errorf("%d, %s", code, stderr)
	}
	seen("not valid TOML") // the instance has tried, and tells its log and its metrics
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		// A file that is broken says nothing about the instance that runs.
		if code, stdout, stderr := invoke("health"); code == exitOK && stdout == "ready\n" && strings.Contains(stderr, "not valid TOML") {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(stderr)
		}
	}
	if code, stdout, stderr := invoke("dlq", "list"); code != exitOK || stdout != "no dead letters\n" {
		t.Errorf("dlq list: %d %s%s", code, stdout, stderr)
	}
	if code, _, stderr := invoke("explain", "nobody"); code != exitFailed || !strings.Contains(stderr, "has seen no event since its start") {
		t.Errorf("explain: %d %s", code, stderr)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	seen("not valid TOML")
	write("[log]\nlevel = 'warn'\n", destination("two"))
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if code, _, stderr := invoke("outbox", "forget", "one"); code == exitFailed && strings.Contains(stderr, "keeps nothing") || code == exitOK {
			break // the instance takes it for one that is not configured
		} else if time.Now().After(deadline) {
			t.Fatal(stderr)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String()+stderr, "hunter2") {
		t.Errorf("the secret is shown:\n%s", log.String())
	}
}
