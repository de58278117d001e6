package outbox

import (
	"context"
	"time"
)

// LinkGrace is how long lead may go on to use the link after its context has ended.
const LinkGrace = 2 * time.Second

// Elector is an Outbox that several instances share. One of them at a time may
// hold the link to the XMPP server: XEP-0114 allows one connection per name.
type Elector interface {
	// Lead calls lead whenever this instance has become the one that holds the link,
	// until ctx ends. The context given to lead ends when that is over, early enough
	// for lead to let go of the link before any other instance can hold it; lead has to do
	// that within LinkGrace. Lead returns what lead returned last, or why the outbox
	// can never work as it is configured.
	Lead(ctx context.Context, lead func(ctx context.Context) error) error
	// Standing says how this instance stands among the others. It is safe for
	// concurrent use.
	Standing() Standing
}

// Standing is how one of several instances stands among the others.
type Standing struct {
	Instance   string `json:"instance"`
	Leading    bool   `json:"leading"`          // it holds the link
	Leader     string `json:"leader,omitempty"` // the instance that holds the link, as far as is known
	Instances  int    `json:"instances"`        // that are alive
	Partitions int    `json:"partitions"`       // whose events this instance delivers
	Of         int    `json:"of_partitions"`
}
