package jetstream

import (
	"crypto/tls"
	"log/slog"
	"os"
	"time"

	"eventpusher/config"
	"eventpusher/pusher/outbox"
)

// Defaults of Options.
const (
	DefaultURL        = "nats://localhost:4222"
	DefaultPrefix     = "EVENTPUSHER"
	DefaultReplicas   = 1
	DefaultPartitions = 16
	DefaultTakeover   = 10 * time.Second
	// DefaultMaxLetterBytes is what JetStream sets aside for dead letters at once.
	DefaultMaxLetterBytes = 256 << 20
	MaxPartitions         = 64
)

// MinTakeover is the shortest Takeover: an instance that has lost touch needs
// outbox.LinkGrace of it to close its link, and some time before that to notice.
const MinTakeover = outbox.LinkGrace + 2*time.Second

// Options say where the outbox lives and what bounds it; what is zero has the
// default of the same name, here or in package outbox.
type Options struct {
	URL             string      // one or more servers, separated by commas
	TLS             *tls.Config // nil: as the servers and URLs ask for
	CredentialsFile string      // of a NATS user (JWT and seed); empty: none
	Username        string      // empty: none
	Password        config.Secret
	// Prefix begins the names of all streams, buckets and subjects.
	Prefix string
	// Replicas is how many servers keep each stream.
	Replicas int
	// Partitions is into how many parts the events are divided by key. It can not be
	// changed once the streams exist.
	Partitions int
	// Backends are the names of all that will read; one that the outbox does not know
	// begins with what is appended from now on.
	Backends []string
	// Takeover is how long an instance must have been out of touch before others
	// take its place.
	Takeover time.Duration
	// MaxSize bounds what the log takes, in bytes before replication, as in
	// outbox.EmbeddedOptions.
	MaxSize int64
	// WindowLimits are those of one backend in one instance, over all partitions.
	outbox.WindowLimits
	// MaxLetters and MaxLetterBytes bound the dead letters: the oldest go.
	MaxLetters     int
	MaxLetterBytes int64
	Instance       string       // a name for people; default: the host's
	Log            *slog.Logger // nil: silent
}

// What is not configurable.
const (
	requestTimeout = 5 * time.Second // of one request to JetStream
	connectTimeout = 5 * time.Second
	saveInterval   = 50 * time.Millisecond
	savePause      = time.Second // after a save that failed
	packEvents     = 64          // at most, of one partition in a message
	packBytes      = 256 << 10   // about, the same
	// headroom is what a dead letter or a parked event takes beside its event, so
	// that whatever fits into the log fits into these too.
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
	l.WindowEvents = max(l.WindowEvents/o.Partitions, packEvents)
	l.WindowBytes = max(l.WindowBytes/int64(o.Partitions), packBytes)
	l.Redelivery = max(l.Redelivery/o.Partitions, 1)
	l.ParkedEvents = max(l.ParkedEvents/o.Partitions, 1)
	l.ParkedBytes = max(l.ParkedBytes/int64(o.Partitions), packBytes)
	return l
}

// fence is how long after its last sign of life an instance stops by itself.
func (o *Options) fence() time.Duration { return o.Takeover - outbox.LinkGrace }

// answer is how long the answer to what is written may take: whoever waits for it
// must not hold up the end of the link.
func (o *Options) answer() time.Duration { return min(requestTimeout, o.fence()) }

// beat is the time between two signs of life.
func (o *Options) beat() time.Duration { return o.fence() / 4 }
