package outbox

import (
	"slices"
	"strings"
	"sync"
)

// positions remembers the latest position of each source. It is safe for
// concurrent use.
type positions struct {
	mu     sync.Mutex
	sorted []Position // by source
}

// advance replaces the positions of the sources named.
func (p *positions) advance(news []Position) {
	if len(news) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range news {
		i, known := slices.BinarySearchFunc(p.sorted, n.Source, func(e Position, source string) int {
			return strings.Compare(e.Source, source)
		})
		if known {
			p.sorted[i] = n
		} else {
			p.sorted = slices.Insert(p.sorted, i, n)
		}
	}
}

// list returns a copy.
func (p *positions) list() []Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sorted)
}
