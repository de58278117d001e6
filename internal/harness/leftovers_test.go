//go:build linux

package harness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// endEnv makes TestNothingIsLeftRunning the process that is going to die; its
// value says how.
const endEnv = "EVENTPUSHER_HARNESS_TEST_END"

// TestNothingIsLeftRunning starts itself in a process that starts servers, ends
// that process in ways that run no cleanup, and looks for what remains.
func TestNothingIsLeftRunning(t *testing.T) {
	if end := os.Getenv(endEnv); end != "" {
		startAndDie(t, end)
	}
	t.Parallel()
	for _, test := range []struct {
		end       string
		processes int // at least: a supervisor for each server, the server, RabbitMQ's epmd
	}{
		{"kill", 9},
		{"panic", 2},
		{"exit", 2},
	} {
		t.Run(test.end, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestNothingIsLeftRunning$", "-test.timeout=5m")
			cmd.Env = append(os.Environ(), endEnv+"="+test.end, keepEnv+"=")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill() // for the failures below

			var dirs []string
			lines := bufio.NewScanner(stdout)
			for lines.Scan() && lines.Text() != "started" {
				if dir, ok := strings.CutPrefix(lines.Text(), "dir "); ok {
					dirs = append(dirs, dir)
				}
			}
			pids := descendants(cmd.Process.Pid)
			if len(pids) < test.processes {
				t.Errorf("only %d processes before the end, want %d at least\n%s", len(pids), test.processes, stderr.String())
			}
			if test.end == "kill" {
				cmd.Process.Kill()
			}
			stdin.Close() // lets the other ends come
			if err := cmd.Wait(); err == nil {
				t.Errorf("the process ended well")
			}

			for _, pid := range pids {
				await(t, fmt.Sprintf("the end of process %d (%s)", pid, commandOf(pid)), func() bool { return gone(pid) })
			}
			if len(dirs) == 0 {
				t.Error("no directories to look for")
			}
			for _, dir := range dirs {
				if _, err := os.Stat(dir); !os.IsNotExist(err) {
					t.Errorf("%s is still there (%v)", dir, err)
				}
			}
		})
	}
}

func startAndDie(t *testing.T, end string) {
	servers := []*server{Prosody(t, ProsodyOptions{}).s}
	if end == "kill" {
		servers = append(servers, Ejabberd(t, EjabberdOptions{}).s, SharedRabbitMQ(t).s, SNS(t).s)
	}
	for _, s := range servers {
		fmt.Println("dir", s.dir)
	}
	fmt.Println("started")
	os.Stdin.Read(make([]byte, 1))
	if end == "panic" {
		go panic("on another goroutine, so that no cleanup runs")
		select {}
	}
	os.Exit(3)
}

// gone says that a process runs no more. A zombie does not: whoever has
// inherited it may take its time.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(text, []byte(") Z ")) || bytes.Contains(text, []byte(") X "))
}

func commandOf(pid int) string {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return filepath.Base(exe)
}

func TestServerThatCannotStartShowsItsLog(t *testing.T) {
	t.Parallel()
	_, _, _, err := launchServer("broken", 1, func(s *server, _ []int) error {
		s.args = []string{"/bin/sh", "-c", "echo the reason >&2; exit 7"}
		s.ready = func(time.Duration) error { return errors.New("no answer") }
		return nil
	})
	if !errors.Is(err, errExited) || !strings.Contains(err.Error(), "status 7") || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("error: %v", err)
	}
}
