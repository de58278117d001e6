package segment

import "os"

// unsynced is the operating system's disk without waiting for it: most tests are
// about what is in the files, which every process sees at once.
type unsynced struct{ osDisk }

type unsyncedFile struct{ *os.File }

func (unsyncedFile) Datasync() error { return nil }

func (unsynced) SyncDir(string) error { return nil }

func (unsynced) Open(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}
