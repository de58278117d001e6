//go:build !linux

package segment

// Datasync implements file.
func (f osFile) Datasync() error { return f.Sync() }
