package outbox

import "sync/atomic"

// Failure remembers an engine's latest error until things work again. Its zero value is that
// they do. It is safe for concurrent use.
type Failure struct{ err atomic.Pointer[error] }

// Set notes an error, or with nil that things work, and reports whether that is news.
func (f *Failure) Set(err error) bool {
	if err == nil {
		return f.err.Swap(nil) != nil
	}
	return f.err.Swap(&err) == nil
}

// Get returns the error, nil if things work.
func (f *Failure) Get() error {
	if p := f.err.Load(); p != nil {
		return *p
	}
	return nil
}
