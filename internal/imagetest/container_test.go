//go:build linux

package imagetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// storage is a private place for images and containers; the machine's own is
// not touched. It needs root, but no daemon and no kernel support for overlays.
type storage struct{ flags []string }

func newStorage(t *testing.T) storage {
	t.Helper()
	if _, err := exec.LookPath("buildah"); err != nil {
		t.Fatal("buildah is missing: apt-get install buildah")
	}
	dir := t.TempDir()
	return storage{flags: []string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs",
	}}
}

// command prepares a call of buildah.
func (s storage) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "buildah", slices.Concat(s.flags, args)...)
	// SIGTERM, because buildah takes its container down with it then and not when
	// it is killed; sent also when the test binary dies.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return cmd
}

// buildah runs a call and returns its output without the final newline.
func (s storage) buildah(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.output(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s storage) output(args ...string) (string, error) {
	// Not the test's context: cleanups call this after it has ended.
	cmd := s.command(context.Background(), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("buildah %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// imageConfig is what the image says about itself, in Docker's terms.
type imageConfig struct {
	User         string
	WorkingDir   string
	Entrypoint   []string
	Cmd          []string
	Volumes      map[string]struct{}
	Labels       map[string]string
	ExposedPorts map[string]struct{}
	Healthcheck  struct{ Test []string }
}

func (s storage) inspect(t *testing.T, image string) imageConfig {
	t.Helper()
	var out struct {
		Docker struct {
			Config imageConfig `json:"config"`
		}
	}
	if err := json.Unmarshal([]byte(s.buildah(t, "inspect", "--type", "image", image)), &out); err != nil {
		t.Fatalf("inspect %s: %v", image, err)
	}
	return out.Docker.Config
}

// container makes a container of image and removes it when the test ends.
func (s storage) container(t *testing.T, image string) string {
	t.Helper()
	id := s.buildah(t, "from", "--pull-never", image)
	t.Cleanup(func() {
		if _, err := s.output("rm", id); err != nil {
			t.Error(err)
		}
	})
	return id
}

// process is a command that runs in a container.
type process struct {
	cmd    *exec.Cmd
	output *lockedBuffer
	exited chan error // buffered: the end of the command
}

// start runs a command in a container as the image's user, on the host's network.
// The caller must stay on one thread: its end would count as the end of the tests.
func (s storage) start(t *testing.T, container string, mounts []string, args ...string) *process {
	t.Helper()
	run := []string{"run", "--isolation", "chroot", "--network", "host"}
	for _, m := range mounts {
		run = append(run, "--volume", m)
	}
	run = append(run, container, "--")
	p := &process{output: &lockedBuffer{}, exited: make(chan error, 1)}
	p.cmd = s.command(t.Context(), append(run, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.exited <- p.cmd.Wait()
	}()
	// The context of the test has ended by then, which stops what still runs.
	t.Cleanup(func() { <-done })
	return p
}

// inner returns the process id of name inside the container, as the host sees it.
func (p *process) inner(name string) (int, error) {
	children := map[int][]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		// pid (name) state ppid ...: the name may hold anything (proc(5)).
		after := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		pid, err1 := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if ppid, err2 := strconv.Atoi(after[1]); err1 == nil && err2 == nil {
			children[ppid] = append(children[ppid], pid)
		}
	}
	for queue := []int{p.cmd.Process.Pid}; len(queue) > 0; queue = queue[1:] {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", queue[0]))
		if arg0, _, _ := strings.Cut(string(cmdline), "\x00"); arg0 == name {
			return queue[0], nil
		}
		queue = append(queue, children[queue[0]]...)
	}
	return 0, fmt.Errorf("no process %s in the container; its output:\n%s", name, p.output.String())
}

// ids returns the real, effective, saved and file system ids of a process.
func ids(pid int) (uids, gids []string, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, nil, err
	}
	for line := range strings.Lines(string(raw)) {
		switch fields := strings.Fields(line); {
		case len(fields) == 5 && fields[0] == "Uid:":
			uids = fields[1:]
		case len(fields) == 5 && fields[0] == "Gid:":
			gids = fields[1:]
		}
	}
	return uids, gids, nil
}

// lockedBuffer may be read while a process writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
