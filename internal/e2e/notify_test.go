package e2e

import (
	"net"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// The program tells systemd that it has started, that it works, and that it stops.
func TestSystemd(t *testing.T) {
	_, _, program, config := prepareProcess(t, "")
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var mu sync.Mutex
	var said []string
	go func() {
		buf := make([]byte, 1<<10)
		for n, err := conn.Read(buf); err == nil; n, err = conn.Read(buf) {
			mu.Lock()
			said = append(said, string(buf[:n]))
			mu.Unlock()
		}
	}()
	count := func(what string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range said {
			if s == what {
				n++
			}
		}
		return n
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "300000")
	p := run(t, program, config)
	await(t, "a few signs of life", func() bool { return count("READY=1") == 1 && count("WATCHDOG=1") >= 3 })
	if code := p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	await(t, "the end", func() bool { return count("STOPPING=1") == 1 })
	mu.Lock()
	defer mu.Unlock()
	if slices.Index(said, "READY=1") != 0 {
		t.Errorf("said: %q", said)
	}
}
