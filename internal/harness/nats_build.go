//go:build linux

package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
)

// oldNATSServer is where Debian puts its nats-server: 2.9.10 in Debian 12.
const oldNATSServer = "/usr/sbin/nats-server"

// natsRequired finds the version of nats-server in nats/go.mod.
var natsRequired = regexp.MustCompile(`github\.com/nats-io/nats-server/v2 v(\S+)`)

// currentNATSServer builds the nats-server of nats/go.mod and returns its path. The
// binary stays in the user's cache directory, so that each machine builds each version
// once. It blocks while another process builds.
var currentNATSServer = sync.OnceValues(func() (path string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "internal", "harness", "nats")
	mod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	version := natsRequired.FindSubmatch(mod)
	if version == nil {
		return "", errors.New("nats/go.mod requires no nats-server")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "eventpusher-harness")
	path = filepath.Join(dir, "nats-server-"+string(version[1]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	var out bytes.Buffer
	build := exec.Command("go", "build", "-trimpath", "-o", path+".new", "github.com/nats-io/nats-server/v2")
	build.Dir, build.Stdout, build.Stderr = source, &out, &out
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build nats-server: %w\n%s", err, &out)
	}
	return path, os.Rename(path+".new", path)
})
