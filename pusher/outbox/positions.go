package outbox

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
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

// completeBit marks a number as that of a complete position. Numbers do not reach it.
const completeBit = 1 << 63

func appendPositions(dst []byte, list []Position) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, p := range list {
		seq := p.Seq
		if p.Complete {
			seq |= completeBit
		}
		dst = appendText(dst, p.Source)
		dst = appendText(dst, p.Epoch)
		dst = binary.AppendUvarint(dst, seq)
	}
	return dst
}

// earlierPrefix begins the source of what earlier versions kept beside a position
// instead of Complete: "known" or "unknown" as its epoch. The names of sources have no
// spaces.
const earlierPrefix = "sessions "

func (d *Decoder) positions() []Position {
	var list []Position
	var complete []string // as kept by earlier versions
	for range d.Count() {
		p := Position{Source: d.Text(), Epoch: d.Text(), Seq: d.Uvarint()}
		if d.damaged {
			return nil
		}
		p.Complete, p.Seq = p.Seq&completeBit != 0, p.Seq&^completeBit
		if source, ok := strings.CutPrefix(p.Source, earlierPrefix); !ok {
			list = append(list, p)
		} else if p.Epoch == "known" {
			complete = append(complete, source)
		}
	}
	for i := range list {
		list[i].Complete = list[i].Complete || slices.Contains(complete, list[i].Source)
	}
	return list
}
