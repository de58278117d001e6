package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"eventpusher/config"
	"eventpusher/internal/control"
	"eventpusher/internal/finding"
	"eventpusher/internal/xmppserver"
	"eventpusher/pusher/outbox/outboxtest"
)

// doctorConfig is a configuration without services, in a directory of its own.
func doctorConfig(t *testing.T, address string) string {
	t.Helper()
	return write(t, fmt.Sprintf("[component]\naddress = %q\nname = \"events.example.org\"\nsecret = \"hunter2\"\n[general]\nhosts = [\"example.org\"]\n[outbox]\npath = %q\n",
		address, filepath.Join(t.TempDir(), "outbox")))
}

func TestDoctor(t *testing.T) {
	refusing, err := xmppserver.New(xmppserver.Options{Component: "events.example.org", Secret: "another"})
	if err != nil {
		t.Fatal(err)
	}
	defer refusing.Close()
	for _, tc := range []struct {
		name string
		args []string
		code int
		want []string // beginnings of lines and parts of them
	}{
		{"nobody there", []string{"-config", doctorConfig(t, "127.0.0.1:1")}, 1, []string{"OK    config", "OK    instance", "FAIL  server", "nothing listens at"}},
		{"wrong secret", []string{"-config", doctorConfig(t, refusing.Addr())}, 1, []string{"FAIL  server", "does not accept the secret"}},
		{"no configuration", []string{"-config", "/nonexistent.toml"}, 1, []string{"FAIL  config"}},
		{"broken configuration", []string{"-config", write(t, "[component]\nname = \"events.example.org\"\nsecret = \"hunter2\"\nadress = \"x\"\n")}, 1,
			[]string{"FAIL  config", "component.adress", "general.hosts"}},
		{"wrong usage", []string{"-configuration", "x"}, 2, nil},
		{"arguments", []string{"all"}, 2, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := invoke(append([]string{"doctor"}, tc.args...)...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d; %s", code, tc.code, stderr)
			}
			for _, part := range tc.want {
				if !strings.Contains(stdout, part) {
					t.Errorf("no %q in\n%s", part, stdout)
				}
			}
			if strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("the secret is shown:\n%s%s", stdout, stderr)
			}
		})
	}
}

func TestDoctorJSON(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.example.org", Secret: "another"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	code, stdout, stderr := invoke("doctor", "-json", "-config", doctorConfig(t, server.Addr()))
	if code != 1 || stderr != "" {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	var list []finding.Finding
	for line := range strings.Lines(stdout) {
		var f finding.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Subject == "" || f.Text == "" {
			t.Errorf("%v: %s", err, line)
		}
		list = append(list, f)
	}
	if last := list[len(list)-1]; last.Level != finding.Fail || last.Subject != "server" || len(list) < 4 {
		t.Errorf("%v", list)
	}
}

// A running instance is asked, and what it says decides the exit code. Nothing listens
// at the server's address, so an examination of the command's own would fail.
func TestDoctorAsksTheInstance(t *testing.T) {
	for code, answer := range map[int]finding.Finding{
		0: finding.Warnf("rabbit", "look", "is slow"),
		1: finding.Failf("rabbit", "start it", "is down"),
	} {
		path := doctorConfig(t, "127.0.0.1:1")
		cfg, problems := config.Load(path, nil)
		if cfg == nil {
			t.Fatal(problems)
		}
		if err := os.Mkdir(cfg.Outbox.Path, 0o700); err != nil {
			t.Fatal(err)
		}
		server, err := control.Listen(cfg.Outbox.Path, kept{outboxtest.Open(t)},
			func(context.Context) []finding.Finding { return []finding.Finding{answer} }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- server.Run(ctx) }()
		got, stdout, stderr := invoke("doctor", "-config", path)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got != code || !strings.HasSuffix(stdout, answer.String()+"\n") || strings.Contains(stdout, "server") {
			t.Errorf("exit code %d, want %d:\n%s%s", got, code, stdout, stderr)
		}
	}
}
