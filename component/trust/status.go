package trust

import (
	"slices"
	"strings"
	"time"
)

// HostStatus says how one host is heard.
type HostStatus struct {
	Host string `json:"host"`
	// Authority names the feed that counts for each class of fact; classes of
	// which nothing was heard yet are missing.
	Authority map[Class]string `json:"authority"`
	// Since says since when that feed counts.
	Since map[Class]time.Time `json:"since"`
	// Heard lists the feeds that reported anything, best first.
	Heard []string `json:"heard"`
	// Privileges are what the host lets the component do on this connection (XEP-0356),
	// such as "presence managed_entity"; Delegated the namespaces that it has left to
	// the component (XEP-0355).
	Privileges []string `json:"privileges,omitempty"`
	Delegated  []string `json:"delegated,omitempty"`
}

// Status says how each host is heard, in order of their names. Any goroutine may call it.
func (a *authorities) Status() []HostStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]HostStatus, 0, len(a.byHost))
	for host, h := range a.byHost {
		if h.name != host {
			continue // the other form of one that is listed
		}
		out := HostStatus{
			Host: string(host), Authority: make(map[Class]string), Since: make(map[Class]time.Time), Heard: []string{},
			Privileges: slices.Clone(h.privileges), Delegated: slices.Clone(h.delegated),
		}
		for c := range numClasses {
			if d := h.authority[c]; d != 0 {
				out.Authority[c], out.Since[c] = d.String(), h.counts[c]
			}
		}
		for f := EventFeed; f <= Direct; f++ {
			if h.heard[f] {
				out.Heard = append(out.Heard, f.String())
			}
		}
		list = append(list, out)
	}
	slices.SortFunc(list, func(x, y HostStatus) int { return strings.Compare(x.Host, y.Host) })
	return list
}
