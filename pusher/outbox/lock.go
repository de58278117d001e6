package outbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultLockTimeout is how long opening waits for another process to let go.
const DefaultLockTimeout = 2 * time.Second

// lockPause is the pause between two attempts.
const lockPause = 25 * time.Millisecond

// LockedError says that another process has the outbox open.
type LockedError struct {
	Dir    string
	Holder string // as the holder has described itself; may be empty
}

// Error implements error; it says what can be done.
func (e *LockedError) Error() string {
	holder := e.Holder
	if holder == "" {
		holder = "another process"
	}
	return fmt.Sprintf("outbox: %s is in use by %s: stop it first, or give each instance a directory of its own", e.Dir, holder)
}

// lockDir takes the lock of the outbox in dir. The lock goes with the process;
// the file stays, since removing it would let two processes in. A symbolic link is not
// followed: a user who can enter the directory could have any file of ours overwritten.
func lockDir(dir string, timeout time.Duration) (*os.File, error) {
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("outbox: %s is a symbolic link, and the lock has to be a file: find out who has made the link, and remove it", name)
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	for deadline := time.Now().Add(timeout); ; time.Sleep(lockPause) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		busy := errors.Is(err, unix.EWOULDBLOCK)
		if !busy && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("outbox: lock %s: %w", f.Name(), err), f.Close())
		}
		if busy && !time.Now().Before(deadline) {
			holder, _ := io.ReadAll(io.LimitReader(f, 200)) // only to be helpful
			return nil, errors.Join(&LockedError{Dir: dir, Holder: strings.TrimSpace(string(holder))}, f.Close())
		}
	}
	who := fmt.Sprintf("process %d (%s)\n", os.Getpid(), filepath.Base(os.Args[0]))
	if err := f.Truncate(0); err == nil { // a full disk must not keep us from starting
		_, _ = f.WriteAt([]byte(who), 0)
	}
	return f, nil
}
