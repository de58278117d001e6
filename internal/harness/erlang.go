//go:build linux

package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ErlangShell evaluates Erlang inside an ejabberd, as the server's own debug shell
// does: a process there waits for files. ejabberdctl would need a node with a name,
// and so a port mapper for the whole machine.
type ErlangShell struct {
	t   testing.TB
	dir string
}

// NewErlangShell makes a shell for one server of one test.
func NewErlangShell(t testing.TB) *ErlangShell { return &ErlangShell{t: t, dir: t.TempDir()} }

// Eval is for EjabberdOptions.Eval; first is evaluated before the server starts.
func (s *ErlangShell) Eval(first string) string {
	return fmt.Sprintf(`%s Dir = %q, spawn(fun Wait() ->
		timer:sleep(20),
		case file:rename(Dir ++ "/todo", Dir ++ "/doing") of
			ok ->
				Result = (catch file:script(Dir ++ "/doing")),
				ok = file:write_file(Dir ++ "/result", io_lib:format("~0p", [Result])),
				ok = file:rename(Dir ++ "/result", Dir ++ "/done");
			_ -> ok
		end,
		Wait() end).`, first, s.dir)
}

// Run evaluates an expression and returns what file:script/1 does, usually
// "{ok,VALUE}".
func (s *ErlangShell) Run(expression string) string {
	s.t.Helper()
	done := filepath.Join(s.dir, "done")
	os.Remove(done)
	draft := filepath.Join(s.dir, "draft")
	if err := os.WriteFile(draft, []byte(expression+"."), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(draft, filepath.Join(s.dir, "todo")); err != nil {
		s.t.Fatal(err)
	}
	deadline := time.After(WaitLimit)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		result, err := os.ReadFile(done)
		if err == nil {
			return string(result)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			s.t.Fatal(err)
		}
		select {
		case <-again.C:
		case <-deadline:
			s.t.Fatalf("no answer to %s", expression)
		}
	}
}

// Ctl is "ejabberdctl" with these arguments: it calls the function that the
// command calls in the server. A status that is not 0 fails the test.
func (s *ErlangShell) Ctl(args ...string) {
	s.t.Helper()
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = fmt.Sprintf("%q", arg)
	}
	if got := s.Run("ejabberd_ctl:process([" + strings.Join(quoted, ", ") + "])"); got != "{ok,0}" {
		s.t.Fatalf("ejabberdctl %q: %s", args, got)
	}
}
