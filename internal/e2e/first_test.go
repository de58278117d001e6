package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"eventpusher/internal/harness"
)

// newcomer is somebody who has the program and a server that knows nothing of it yet.
type newcomer struct {
	t       *testing.T
	program string
	dir     string // where he works
	sink    *harness.Sink
}

func newNewcomer(t *testing.T) *newcomer {
	return &newcomer{t, build(t), t.TempDir(), harness.HTTPSink(t)}
}

// must runs the program and returns what it prints on standard output.
func (n *newcomer) must(args ...string) string {
	n.t.Helper()
	cmd := exec.Command(n.program, args...)
	cmd.Dir = n.dir
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		n.t.Fatalf("%q: %v\n%s%s", args, err, out.String(), problems.String())
	}
	return out.String()
}

// shell gives commands that init has printed to a shell, with a server that is elsewhere.
func (n *newcomer) shell(commands string) {
	n.t.Helper()
	cmd := exec.Command("sh", "-e", "-c", commands)
	cmd.Dir = n.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(n.program)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("%v\n%s\n%s", err, commands, out)
	}
}

// moved returns the commands for a server whose files and ports are elsewhere.
func (n *newcomer) moved(commands string, places ...string) string {
	n.t.Helper()
	for i := 0; i < len(places); i += 2 {
		if !strings.Contains(commands, places[i]) {
			n.t.Fatalf("%q is not in the commands:\n%s", places[i], commands)
		}
	}
	return strings.NewReplacer(places...).Replace(commands)
}

// runs starts the program where it was set up, and waits for the first event.
func (n *newcomer) runs(server *harness.XMPPServer, address string) {
	n.t.Helper()
	config := filepath.Join(n.dir, "config.toml")
	for key, value := range map[string]string{
		"EVENTPUSHER_COMPONENT_ADDRESS": address, "EVENTPUSHER_OUTBOX_PATH": filepath.Join(n.dir, "outbox"), "EVENTPUSHER_ADMIN_LISTEN": "127.0.0.1:0",
	} {
		n.t.Setenv(key, value)
	}
	n.must("check", config)
	if got := n.must("doctor", "-config", config); !strings.Contains(got, "heard: event-feed") || strings.Contains(got, "is older") {
		n.t.Errorf("doctor:\n%s", got)
	}
	p := run(n.t, n.program, config)
	p.says("feed established", "event-feed")
	alice := server.Login(n.t, "alice", "phone")
	alice.Presence()
	alice.Send("<message to='bob@localhost' type='chat' id='first'><body>hello</body></message>")
	await(n.t, "the first events", func() bool {
		var all strings.Builder
		for _, r := range n.sink.Requests() {
			all.Write(r.Body)
		}
		return strings.Contains(all.String(), `"stanza_id":"first"`) && strings.Contains(all.String(), `"type":"online"`)
	})
	if code := p.end(syscall.SIGTERM); code != 0 {
		n.t.Errorf("exit code %d", code)
	}
}

// From nothing to the first event at Prosody, by the commands that init prints.
func TestFirstContactWithProsody(t *testing.T) {
	n := newNewcomer(t)
	server := harness.Prosody(t, harness.ProsodyOptions{})
	commands := n.must("init", "-server", "prosody", "-host", "localhost", "-rooms", server.MUC, "-name", "feed.localhost", "-to", n.sink.URL()+"/")
	n.shell("chown() { :; }; systemctl() { :; }\n" +
		n.moved(commands, "/etc/prosody", server.Dir(), "/usr/local/lib/prosody/modules", server.Dir()+"/modules"))
	server.Restart()
	n.runs(server, server.ComponentAddr(server.Component)) // it listens for all components there

	second := exec.Command(n.program, "init", "-server", "prosody", "-host", "localhost")
	second.Dir = n.dir
	if out, _ := second.CombinedOutput(); second.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "stays as it is") {
		t.Errorf("a second init: exit code %d\n%s", second.ProcessState.ExitCode(), out)
	}
}

// From nothing to the first event at ejabberd, which goes on running.
func TestFirstContactWithEjabberd(t *testing.T) {
	n := newNewcomer(t)
	modules, conf := filepath.Join(n.dir, "modules"), filepath.Join(n.dir, "modules.d")
	erlang := harness.NewErlangShell(t)
	server := harness.Ejabberd(t, harness.EjabberdOptions{Eval: erlang.Eval(fmt.Sprintf(
		`os:putenv("CONTRIB_MODULES_PATH", %q), os:putenv("CONTRIB_MODULES_CONF_DIR", %q),`, modules, conf))})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()

	commands := n.must("init", "-server", "ejabberd", "-host", "localhost", "-name", "feed.localhost", "-to", n.sink.URL()+"/")
	commands = n.moved(commands, "/etc/ejabberd/modules.d", conf, "/etc/ejabberd", server.Dir(),
		"/var/lib/ejabberd/.ejabberd-modules", modules, "port: 5347", "port: "+port)
	// What is said to ejabberdctl is for the shell inside the server.
	parts := strings.Split(commands, "\nejabberdctl ")
	if len(parts) != 3 {
		t.Fatalf("commands:\n%s", commands)
	}
	n.shell("mkdir -p " + conf + "; chown() { :; }\n" + parts[0])
	for _, part := range parts[1:] {
		command, rest, _ := strings.Cut(part, "\n")
		erlang.Ctl(strings.Fields(command)...)
		n.shell("chown() { :; }\n" + rest)
	}
	n.runs(server, "127.0.0.1:"+port)
}
