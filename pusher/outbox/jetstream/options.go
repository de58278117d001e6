package jetstream

import (
	"log/slog"
	"os"
	"time"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/cluster"
	"eventpusher/pusher/outbox"
)

// Defaults of Options.
const (
	DefaultURL        = "nats://localhost:4222"
	DefaultPrefix     = "EVENTPUSHER"
	DefaultReplicas   = 1
	DefaultPartitions = 16
	DefaultTakeover   = 15 * time.Second
	// DefaultMaxLetterBytes is what JetStream sets aside for dead letters at once.
	DefaultMaxLetterBytes = 256 << 20
	MaxPartitions         = 64
)

// MinTakeover is the shortest Takeover: an instance whose lease ends needs outbox.LinkGrace
// of it to close its link, and some time before that to notice.
const MinTakeover = outbox.LinkGrace + 3*time.Second

// Options say where the outbox lives and what bounds it; what is zero has the default of the
// same name, here or in package outbox.
type Options struct {
	natsrpc.Options // Instance: default the host's name; Log nil: silent
	// Partitions is into how many parts the events are divided by key. It cannot be
	// changed once the streams exist.
	Partitions int
	// Backends are the names of all that will read from the start. No partition is acquired
	// before they do.
	Backends []string
	// Takeover is how long the holder of the link must have been silent before another
	// instance acquires it. Partitions are acquired after deliverExpire at most.
	Takeover time.Duration
	// MaxSize bounds what the log takes, in bytes before replication, as in
	// outbox.EmbeddedOptions.
	MaxSize int64
	// WindowLimits are those of one backend in one instance, over all partitions.
	outbox.WindowLimits
	// MaxLetters and MaxLetterBytes bound the dead letters: the oldest go.
	MaxLetters     int
	MaxLetterBytes int64
}

// What is not configurable.
const (
	requestTimeout = natsrpc.RequestTimeout
	saveInterval   = 50 * time.Millisecond
	savePause      = 500 * time.Millisecond // after a save that failed
	// deliverExpire is how long an instance must have been silent before the others
	// acquire its partitions. A NATS server that is killed is replaced by another one
	// within 8 s; instances should not let go of everything over that.
	deliverExpire = 9 * time.Second
	// stopEarly is how much earlier an instance stops by itself.
	stopEarly = 500 * time.Millisecond
	// lookEarly is for what it takes to see that a lease is over, and to acquire it.
	lookEarly = 500 * time.Millisecond
	// callsGrace is how long a hand-over waits for calls that are under way.
	callsGrace = 2 * time.Second
	// headroom is what a dead letter or a parked event takes beside its event. So an
	// event that fits into the log fits into these too.
	headroom = 16 << 10
)

func or[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

func (o *Options) complete() {
	or(&o.URL, DefaultURL)
	or(&o.Prefix, DefaultPrefix)
	or(&o.Replicas, DefaultReplicas)
	or(&o.Partitions, DefaultPartitions)
	or(&o.Takeover, DefaultTakeover)
	o.Takeover = max(o.Takeover, MinTakeover)
	or(&o.MaxSize, outbox.DefaultMaxSize)
	or(&o.MaxLetters, outbox.DefaultMaxLetters)
	or(&o.MaxLetterBytes, DefaultMaxLetterBytes)
	or(&o.WindowEvents, outbox.DefaultWindowEvents)
	or(&o.WindowBytes, outbox.DefaultWindowBytes)
	or(&o.Redelivery, outbox.DefaultRedelivery)
	or(&o.ParkedEvents, outbox.DefaultParkedEvents)
	or(&o.ParkedBytes, outbox.DefaultParkedBytes)
	if o.Instance == "" {
		o.Instance, _ = os.Hostname() // only to be helpful
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// lane returns the limits of one backend in one partition.
func (o *Options) lane() outbox.WindowLimits {
	l := o.WindowLimits
	l.WindowEvents = max(l.WindowEvents/o.Partitions, 64)
	l.WindowBytes = max(l.WindowBytes/int64(o.Partitions), 256<<10)
	l.Redelivery = max(4*l.Redelivery/o.Partitions, 1)
	l.ParkedEvents = max(l.ParkedEvents/o.Partitions, 1)
	l.ParkedBytes = max(l.ParkedBytes/int64(o.Partitions), 256<<10)
	return l
}

// linkLease is the lease of the link.
func (o *Options) linkLease() cluster.Lease {
	expire := o.Takeover - lookEarly
	return cluster.Lease{Expire: expire, Stop: expire - outbox.LinkGrace}
}

// deliverLease is the lease of all partitions together.
func (o *Options) deliverLease() cluster.Lease {
	expire := min(o.Takeover, deliverExpire) - lookEarly
	return cluster.Lease{Expire: expire, Stop: expire - stopEarly}
}

// answer bounds one Append, so that the end of the link does not wait for it.
func (o *Options) answer() time.Duration { return min(requestTimeout, o.linkLease().Stop) }
