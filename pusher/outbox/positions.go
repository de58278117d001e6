package outbox

import (
	"cmp"
	"slices"
	"sync"
)

// MaxPositions is how many positions are remembered. A server that changes its name at
// each start leaves one or two each time, and all of them are written with every pack.
// Whoever was not heard of for longest is forgotten: if it does come back, it is greeted
// like a source that was never there.
const MaxPositions = 1024

// positions remembers the latest position of each source. It is safe for
// concurrent use.
type positions struct {
	mu   sync.Mutex
	kept []Position // the one that moved last stands last
}

// advance replaces the positions of the sources named.
func (p *positions) advance(news []Position) {
	if len(news) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = MergePositions(p.kept, news)
}

// merged returns what recent would return after advance.
func (p *positions) merged(news []Position) []Position { return MergePositions(p.recent(), news) }

// MergePositions puts news, all of different sources, behind what is known of others, and
// forgets the first if there are too many. It may change kept.
func MergePositions(kept, news []Position) []Position {
	for _, n := range news {
		if i := slices.IndexFunc(kept, func(k Position) bool { return k.Source == n.Source }); i >= 0 {
			kept = slices.Delete(kept, i, i+1)
		}
		kept = append(kept, n)
	}
	return kept[max(len(kept)-MaxPositions, 0):]
}

// SortPositions returns a copy in the order of the sources' names.
func SortPositions(list []Position) []Position {
	return slices.SortedFunc(slices.Values(list), func(a, b Position) int { return cmp.Compare(a.Source, b.Source) })
}

// list returns a copy in the order of the names.
func (p *positions) list() []Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return SortPositions(p.kept)
}

// recent returns a copy in the order in which they moved, as it is to be kept.
func (p *positions) recent() []Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.kept)
}
