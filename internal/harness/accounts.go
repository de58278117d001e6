//go:build linux

package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
)

// accountCommands makes and removes accounts by the server's own commands.
type accountCommands interface {
	register(user, host string) error
	unregister(user, host string) error
}

// Register makes an account, with Password, by the server's own command; the server was
// made with the option Accounts. A user with an "@" is one of that virtual host, else one
// of the server's first.
func (s *XMPPServer) Register(user string) {
	s.t.Helper()
	name, host := s.account(user)
	s.must("register "+user, s.accounts.register(name, host))
}

// Unregister removes an account in the same way. Its sessions end.
func (s *XMPPServer) Unregister(user string) {
	s.t.Helper()
	name, host := s.account(user)
	s.must("unregister "+user, s.accounts.unregister(name, host))
}

func (s *XMPPServer) account(user string) (name, host string) {
	if name, host, ok := strings.Cut(user, "@"); ok {
		return name, host
	}
	return user, s.Domain
}

// Shell runs a command of "prosodyctl shell" in a Prosody that was made with the option Accounts.
func (s *XMPPServer) Shell(args ...string) {
	s.t.Helper()
	s.must(strings.Join(args, " "), s.accounts.(prosodyShell).run(args...))
}

// prosodyShell is prosodyctl shell, by which a running Prosody is told. Its prosodyctl
// deluser does the work in a process of its own.
type prosodyShell struct{ s *server }

func (p prosodyShell) register(user, host string) error {
	return p.run("user", "create", user+"@"+host, Password)
}

func (p prosodyShell) unregister(user, host string) error {
	return p.run("user", "delete", user+"@"+host)
}

func (p prosodyShell) run(args ...string) error {
	prosodyctl, err := exec.LookPath("prosodyctl")
	if err != nil {
		return fmt.Errorf("%w (run internal/harness/install.sh)", err)
	}
	cmd := exec.Command(prosodyctl, append([]string{"--root", "--config", filepath.Join(p.s.dir, "prosody.cfg.lua"), "shell"}, args...)...)
	cmd.Env = p.s.env
	out, err := cmd.CombinedOutput()
	// Its exit status is 0 in any case. After "OK: " each release has words of its own.
	if err != nil || !bytes.Contains(out, []byte("OK: ")) {
		return fmt.Errorf("prosodyctl shell %s: %v: %s", args[0], err, out)
	}
	return nil
}

// ejabberdAPI is mod_http_api, which has the commands of ejabberdctl: that needs a node
// with a name.
type ejabberdAPI struct{ addr string }

func (e ejabberdAPI) register(user, host string) error {
	return e.call("register", map[string]string{"user": user, "host": host, "password": Password})
}

func (e ejabberdAPI) unregister(user, host string) error {
	return e.call("unregister", map[string]string{"user": user, "host": host})
}

func (e ejabberdAPI) call(command string, args map[string]string) error {
	body, err := json.Marshal(args)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: WaitLimit}
	resp, err := client.Post("http://"+e.addr+"/api/"+command, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ejabberd's %s: %s %s %v", command, resp.Status, answer, err)
	}
	return nil
}
