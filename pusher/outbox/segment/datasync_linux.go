package segment

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Datasync implements file. It leaves out the times of the file, which nobody
// needs back and which would cost a second write.
func (f osFile) Datasync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
