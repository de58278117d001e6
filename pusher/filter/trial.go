package filter

import (
	"strings"

	"eventpusher/config"
)

// Fault says what is wrong with an expression that is tried.
type Fault struct {
	Key     string `json:"key"` // keep or metadata.NAME
	Text    string `json:"text"`
	Remedy  string `json:"remedy,omitempty"`
	Column  int    `json:"column,omitempty"`  // where, in characters from 1; 0: the whole expression
	Warning bool   `json:"warning,omitempty"` // the expression works all the same
}

// CompileTrial makes a chain of one filter from its keep and its metadata, as [[filter]] has
// them. The chain counts and logs nothing. It is nil if there is a fault that is no warning.
func CompileTrial(keep string, metadata map[string]string) (*Chain, []Fault) {
	c := compilation{cfg: &config.Filter{Name: "trial", Keep: keep, Metadata: metadata}, where: "trial"}
	f := c.filter()
	var faults []Fault
	for _, p := range c.problems {
		faults = append(faults, Fault{
			Key: strings.TrimPrefix(p.Path, "trial: "), Text: p.Text, Remedy: p.Remedy, Column: c.columns[p.Path], Warning: p.Severity != config.Error,
		})
	}
	if f == nil {
		return nil, faults
	}
	chain, err := NewChain([]Filter{f}, Metrics{}, nil)
	if err != nil {
		return nil, append(faults, Fault{Key: "keep", Text: err.Error()})
	}
	return chain, faults
}
