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
	p.sorted = merge(p.sorted, news)
}

// merged returns what list would return after advance.
func (p *positions) merged(news []Position) []Position { return merge(p.list(), news) }

// merge puts news into sorted.
func merge(sorted, news []Position) []Position {
	for _, n := range news {
		i, known := slices.BinarySearchFunc(sorted, n.Source, func(e Position, source string) int {
			return strings.Compare(e.Source, source)
		})
		if known {
			sorted[i] = n
		} else {
			sorted = slices.Insert(sorted, i, n)
		}
	}
	return sorted
}

// list returns a copy.
func (p *positions) list() []Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sorted)
}
