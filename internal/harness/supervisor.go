//go:build linux

package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supervisorEnv marks the process that supervises a server; its value is the
// server's directory.
const supervisorEnv = "EVENTPUSHER_HARNESS_SUPERVISOR"

// keepEnv keeps the directories of failed tests when it is not empty.
const keepEnv = "HARNESS_KEEP"

// init turns the test binary into a supervisor when the harness has started it
// as one. Only init runs before the testing package takes the command line, and
// a separate program would have to be built by every test that wants a server.
func init() {
	if dir := os.Getenv(supervisorEnv); dir != "" {
		// Pdeathsig counts from the death of the thread that forked; the main
		// thread lives as long as the process.
		runtime.LockOSThread()
		os.Exit(supervise(dir, os.Stdin, os.Stdout))
	}
}

// order is what the test binary tells a supervisor, one JSON object a line.
type order struct {
	Op     string         `json:"op"` // start, signal (to the server itself), kill (everything), pause, resume
	Args   []string       `json:"args,omitempty"`
	Env    []string       `json:"env,omitempty"`
	Output string         `json:"output,omitempty"` // file that stdout and stderr are appended to
	Signal syscall.Signal `json:"signal,omitempty"`
}

// report is what a supervisor answers, one JSON object a line: a process id
// after start, Exited when the server and all that it left behind are gone.
type report struct {
	PID    int    `json:"pid,omitempty"`
	Exited string `json:"exited,omitempty"`
	Err    string `json:"err,omitempty"`
}

// supervise carries out orders until their pipe closes, which is the death of
// the test binary or its wish; then nothing of the server remains, the
// directory included.
func supervise(dir string, in io.Reader, out io.Writer) int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "become subreaper: %v\n", err)
		return 1
	}
	// An interrupted terminal or a closed session must not end the supervisor
	// before its server; a report that nobody reads must not either.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)

	orders := make(chan order)
	go func() {
		defer close(orders)
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var o order
			if json.Unmarshal(lines.Bytes(), &o) != nil {
				return
			}
			orders <- o
		}
	}()

	reports := json.NewEncoder(out)
	server := 0 // its process id, 0 while it is down
	for {
		select {
		case o, ok := <-orders:
			if !ok {
				killDescendants()
				removeDir(dir)
				return 0
			}
			switch o.Op {
			case "start":
				pid, err := launch(dir, o)
				if err != nil {
					reports.Encode(report{Err: err.Error()})
					continue
				}
				server = pid
				reports.Encode(report{PID: pid})
			case "signal":
				if server != 0 {
					syscall.Kill(server, o.Signal)
				}
			case "kill":
				signalDescendants(syscall.SIGKILL)
			case "pause":
				signalDescendants(syscall.SIGSTOP)
			case "resume":
				signalDescendants(syscall.SIGCONT)
			}
		case <-children:
			if status, ended := reap(server); ended {
				server = 0
				killDescendants()
				reports.Encode(report{Exited: status})
			}
		case <-terminate:
			killDescendants()
			removeDir(dir)
			return 0
		}
	}
}

// removeDir is for the end that nobody watches, hence it leaves what the
// developer wants to look at.
func removeDir(dir string) {
	if os.Getenv(keepEnv) == "" {
		os.RemoveAll(dir)
	}
}

// launch starts the server in a session of its own, so that no terminal
// reaches it.
func launch(dir string, o order) (int, error) {
	output, err := os.OpenFile(o.Output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer output.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	return syscall.ForkExec(o.Args[0], o.Args, &syscall.ProcAttr{
		Dir:   dir,
		Env:   o.Env,
		Files: []uintptr{null.Fd(), output.Fd(), output.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
}

// reap collects every dead descendant and says whether the server is among them.
func reap(server int) (status string, ended bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return status, ended
		}
		if pid == server {
			ended = true
			if ws.Signaled() {
				status = "by signal " + ws.Signal().String()
			} else {
				status = "with status " + strconv.Itoa(ws.ExitStatus())
			}
		}
	}
}

// killDescendants returns when there is none left. It asks again and again
// because a process can fork while its siblings are being killed.
func killDescendants() {
	for {
		signalDescendants(syscall.SIGKILL)
		for {
			var ws syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
			if err == syscall.ECHILD {
				return
			}
			if err != syscall.EINTR && (err != nil || pid <= 0) {
				break
			}
		}
		<-time.After(2 * time.Millisecond)
	}
}

func signalDescendants(sig syscall.Signal) {
	for _, pid := range descendants(os.Getpid()) {
		syscall.Kill(pid, sig)
	}
}

// descendants lists the processes below root from /proc, parents first.
func descendants(root int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	childrenOf := make(map[int][]int)
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // gone meanwhile
		}
		// proc(5): the second field is the name in parentheses, which may
		// itself contain spaces and parentheses; state and parent follow it.
		end := strings.LastIndexByte(string(text), ')')
		if end < 0 {
			continue
		}
		fields := strings.Fields(string(text[end+1:]))
		if len(fields) < 2 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, _ := strconv.Atoi(fields[1])
		childrenOf[parent] = append(childrenOf[parent], pid)
	}
	all := childrenOf[root]
	for i := 0; i < len(all); i++ {
		all = append(all, childrenOf[all[i]]...)
	}
	return all
}
