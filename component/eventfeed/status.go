package eventfeed

import (
	"slices"
	"strings"
	"time"

	"eventpusher/component/trust"
)

// Status says how far a source of the event-feed has come.
type Status struct {
	Name string `json:"name"`
	// Host is where it introduced itself last, Server what it says of itself.
	Host   string `json:"host"`
	Server string `json:"server,omitempty"`
	// Connected says since when it is there, nil if it has not introduced itself on
	// this connection.
	Connected *time.Time `json:"connected_since,omitempty"`
	Epoch     string     `json:"epoch"`
	// Received is the last event that was taken, Committed the last one known to be on
	// disk; both are of Epoch and 0 where there is none.
	Received  uint64 `json:"received"`
	Committed uint64 `json:"committed"`
	// Holes counts what the server gave up, LostEvents the events in them, UnknownLosses
	// the times that it came back without what it had kept, since the start.
	Holes         uint64 `json:"holes"`
	LostEvents    uint64 `json:"lost_events"`
	UnknownLosses uint64 `json:"unknown_losses"`
	Duplicates    uint64 `json:"duplicates"`
	// Tokens says that its module proves by tokens that it speaks itself.
	Tokens bool `json:"tokens"`
}

// Status lists the sources in order of their names.
func (s *Sources) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Status, 0, len(s.byName))
	for _, src := range s.byName {
		out := Status{
			Name: src.name, Host: string(src.host), Server: trust.Shortened(src.hello.Server), Epoch: src.epoch,
			Holes: src.holes, LostEvents: src.lost, UnknownLosses: src.unknownLosses, Duplicates: src.duplicate, Tokens: src.token != "",
		}
		if since := src.since; !since.IsZero() {
			out.Connected = &since
		}
		if src.inEpoch == src.epoch {
			out.Received = src.received
		}
		if src.committed.Epoch == src.epoch {
			out.Committed = src.committed.Seq
		}
		list = append(list, out)
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Missing returns the sources that were there once, as their positions on disk show, and
// are not there on a connection that has lasted for trust.Patience: they have not introduced
// themselves, or do not answer any more. all says that no other source is there.
func (s *Sources) Missing(now time.Time) (names []string, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached.IsZero() || now.Sub(s.attached) < trust.Patience {
		return nil, false
	}
	all = true
	for _, src := range s.byName {
		all = all && !src.there(now)
	}
	for _, at := range s.sink.Positions() {
		if src := s.byName[at.Source]; src == nil || !src.there(now) {
			names = append(names, at.Source)
		}
	}
	slices.Sort(names)
	return names, all
}
