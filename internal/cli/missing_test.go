package cli

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoOutboxHere: a command that finds no outbox fails, and says where it has looked.
func TestNoOutboxHere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	t.Chdir(dir)
	if dir, err = os.Getwd(); err != nil { // without symbolic links
		t.Fatal(err)
	}
	const relative = "[outbox] path is relative to the directory in which run was started; call it there"
	there := fmt.Sprintf(" (an instance is running: something listens at [admin] listen = %q)", l.Addr())
	for name, c := range map[string]struct{ path, listen, says string }{
		"relative":               {"outbox", "127.0.0.1:0", "there is no outbox in " + filepath.Join(dir, "outbox") + ": " + relative + "\n"},
		"relative and it runs":   {"outbox", l.Addr().String(), relative + there + "\n"},
		"absolute":               {"/nowhere/outbox", "127.0.0.1:0", "there is no outbox in /nowhere/outbox: run has never been started, or [outbox] path is another one\n"},
		"the directory is empty": {dir, "127.0.0.1:0", "there is no outbox in " + dir + ": run has never been started, or"},
	} {
		config := write(t, fmt.Sprintf("%s\n[modules.mod_event_pusher.push]\n[outbox]\npath = %q\n[admin]\nlisten = %q\n", good, c.path, c.listen))
		for _, command := range []string{"push explain alice@example.org", "push disable alice@example.org", "dlq list", "dlq show 1", "dlq replay -all", "dlq drop 1", "outbox forget crm"} {
			t.Run(name+"/"+command, func(t *testing.T) {
				code, stdout, stderr := invoke(append(strings.Fields(command), "-config", config)...)
				if code != 1 || stdout != "" || !strings.Contains(stderr, c.says) {
					t.Errorf("exit code %d: %s%s", code, stdout, stderr)
				}
			})
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("%v, %v", files, err)
	}
}
