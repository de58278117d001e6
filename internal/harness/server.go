//go:build linux

package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// startLimit bounds the wait for a server that starts: twenty times what the
	// slowest needs on an idle machine.
	startLimit = 3 * time.Minute
	// readyLimit bounds one attempt to find out whether a server is ready.
	readyLimit = 10 * time.Second
	// stopLimit bounds a clean stop; what takes longer is killed and the test fails.
	stopLimit = 2 * time.Minute
	// WaitLimit bounds every other wait of the package. It is generous because
	// it only matters when something is broken, or when the machine is busy.
	WaitLimit = 2 * time.Minute
	// logTail is how much of each log a failure shows, in bytes.
	logTail = 6 << 10
)

// errExited says that a server ended by itself.
var errExited = errors.New("the server exited")

// server is one supervised server: a directory, a command, a test for
// readiness. It outlives stops and restarts of the process. Safe for concurrent
// use, but its callers must not start and stop it at the same time.
type server struct {
	name  string
	dir   string
	args  []string
	env   []string
	logs  []string                  // glob patterns relative to dir
	ready func(time.Duration) error // one attempt, bounded by its argument

	mu      sync.Mutex
	cmd     *exec.Cmd
	orders  *os.File
	reports *os.File
	pending []byte // read from reports, not yet a whole line
	pid     int    // 0 while the server is down
	starts  int    // how often it was started
}

// newServer makes the directory and starts the supervisor, not yet the server.
func newServer(name string) (*server, error) {
	dir, err := os.MkdirTemp("", "eventpusher-"+name+"-")
	if err != nil {
		return nil, err
	}
	s := &server{name: name, dir: dir, logs: []string{"output.log"}}
	if err := s.supervise(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start the supervisor of %s: %w", name, err)
	}
	return s, nil
}

func (s *server) supervise() error {
	orders, ordersEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer orders.Close()
	reportsEnd, reports, err := os.Pipe()
	if err != nil {
		ordersEnd.Close()
		return err
	}
	defer reports.Close()
	stderr, err := os.Create(filepath.Join(s.dir, "supervisor.log"))
	if err != nil {
		return err
	}
	defer stderr.Close()

	s.cmd = exec.Command("/proc/self/exe")
	// A program with the race detector sleeps for a second when it ends, and every
	// test would wait for that once for each of its servers.
	s.cmd.Env = append(os.Environ(), supervisorEnv+"="+s.dir, "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = orders, reports, stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.cmd.Start(); err != nil {
		ordersEnd.Close()
		reportsEnd.Close()
		return err
	}
	s.orders, s.reports = ordersEnd, reportsEnd
	return nil
}

// start starts the server and returns when it is ready.
func (s *server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.order(order{Op: "start", Args: s.args, Env: s.env, Output: filepath.Join(s.dir, "output.log")})
	if err != nil {
		return err
	}
	var r report
	for r.PID == 0 { // passing over the end of an earlier life that nobody asked for
		if r, err = s.report(startLimit); err != nil {
			return err
		}
		if r.Err != "" {
			return fmt.Errorf("%s: %s", s.args[0], r.Err)
		}
	}
	s.pid = r.PID
	s.starts++

	deadline := time.Now().Add(startLimit)
	for {
		err := s.ready(readyLimit)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready within %s: %w", startLimit, err)
		}
		// The pause between two attempts ends at once when the server dies.
		if exit, waitErr := s.exited(25 * time.Millisecond); waitErr == nil {
			return fmt.Errorf("%w %s while starting (%v)", errExited, exit, err)
		} else if !errors.Is(waitErr, os.ErrDeadlineExceeded) {
			return waitErr
		}
	}
}

// stop asks the server to end and waits until it and all its helpers are gone.
func (s *server) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return nil
	}
	if err := s.order(order{Op: "signal", Signal: syscall.SIGTERM}); err != nil {
		return err
	}
	_, err := s.exited(stopLimit)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.order(order{Op: "kill"})
		s.exited(stopLimit)
		return fmt.Errorf("did not stop within %s of SIGTERM, killed", stopLimit)
	}
	return err
}

// kill ends the server and its helpers with SIGKILL.
func (s *server) kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return nil
	}
	if err := s.order(order{Op: "kill"}); err != nil {
		return err
	}
	_, err := s.exited(stopLimit)
	return err
}

// freeze stops (SIGSTOP) or resumes (SIGCONT) the server and its helpers and
// returns when the kernel has done it.
func (s *server) freeze(stop bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return errors.New("is not running")
	}
	op := "resume"
	if stop {
		op = "pause"
	}
	if err := s.order(order{Op: op}); err != nil {
		return err
	}
	for deadline := time.Now().Add(stopLimit); stopped(s.pid) != stop; {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s had no effect within %s", op, stopLimit)
		}
		exit, err := s.exited(time.Millisecond)
		if err == nil {
			return fmt.Errorf("%w %s", errExited, exit)
		}
	}
	return nil
}

// stopped says whether a process is stopped by a signal (state T of proc(5)).
func stopped(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(text, []byte(") "))
	return bytes.HasPrefix(rest, []byte("T"))
}

// close ends everything. The directory remains only for a developer who asked for it.
func (s *server) close(keep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	s.orders.Close() // the supervisor's order to clear up
	s.cmd.Wait()
	s.reports.Close()
	s.cmd = nil
	if !keep {
		os.RemoveAll(s.dir)
	}
}

// closeAfter ties the server's end to the test's; a failed test gets the logs.
func (s *server) closeAfter(t testing.TB) {
	t.Cleanup(func() {
		keep := t.Failed() && os.Getenv(keepEnv) != ""
		if t.Failed() {
			t.Log(s.tail())
		}
		if keep {
			t.Logf("%s: kept %s", s.name, s.dir)
		}
		s.close(keep)
	})
}

func (s *server) order(o order) error {
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = s.orders.Write(append(line, '\n'))
	return err
}

// exited waits for the report that the server has ended.
func (s *server) exited(limit time.Duration) (string, error) {
	r, err := s.report(limit)
	if err != nil {
		return "", err
	}
	s.pid = 0
	return r.Exited, nil
}

// report reads the supervisor's next line. It keeps what a deadline cuts off.
func (s *server) report(limit time.Duration) (report, error) {
	var r report
	s.reports.SetReadDeadline(time.Now().Add(limit))
	for {
		if line, rest, whole := bytes.Cut(s.pending, []byte("\n")); whole {
			s.pending = bytes.Clone(rest)
			return r, json.Unmarshal(line, &r)
		}
		var buf [512]byte
		n, err := s.reports.Read(buf[:])
		s.pending = append(s.pending, buf[:n]...)
		if err != nil {
			return r, fmt.Errorf("the supervisor of %s: %w", s.name, err)
		}
	}
}

// tail returns the end of each of the server's logs.
func (s *server) tail() string {
	var b strings.Builder
	for _, pattern := range append([]string{"supervisor.log"}, s.logs...) {
		names, _ := filepath.Glob(filepath.Join(s.dir, pattern))
		sort.Strings(names)
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil || len(text) == 0 {
				continue
			}
			if len(text) > logTail {
				text = text[len(text)-logTail:]
			}
			fmt.Fprintf(&b, "--- end of %s's %s\n%s\n", s.name, filepath.Base(name), bytes.TrimSpace(text))
		}
	}
	if b.Len() == 0 {
		return s.name + " has logged nothing"
	}
	return b.String()
}
