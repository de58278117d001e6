package segment

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// disk is what the log needs of a file system.
type disk interface {
	Open(path string, flag int) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes names that were given or removed in dir durable.
	SyncDir(dir string) error
}

// file is what the log needs of a file.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Datasync makes the content and the size durable.
	Datasync() error
}

// osDisk is the operating system's.
type osDisk struct{}

// Open implements disk. It follows no symbolic link.
func (osDisk) Open(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename implements disk.
func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements disk.
func (osDisk) Remove(path string) error { return os.Remove(path) }

// SyncDir implements disk.
func (osDisk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// osFile is a file of the operating system.
type osFile struct{ *os.File }
