package rabbit

import "time"

// EndPause lets the next attempt to connect begin at once.
func EndPause(b *Backend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pause = time.Time{}
}
