package outbox

import (
	"log/slog"
	"time"

	"eventpusher/pusher/outbox/segment"
)

// Defaults of EmbeddedOptions.
const (
	DefaultMaxSize        = 10 << 30
	DefaultWindowEvents   = 8192
	DefaultWindowBytes    = 16 << 20
	DefaultRedelivery     = 1024
	DefaultParkedEvents   = 100_000
	DefaultParkedBytes    = 256 << 20
	DefaultParkAttempts   = 5
	DefaultParkAfter      = 30 * time.Second
	defaultSaveInterval   = 50 * time.Millisecond
	smallestSegment       = 128 << 10
	segmentsWithinMaxSize = 8
)

// EmbeddedOptions say where an Embedded lives and what bounds it; what is zero
// has the default of the same name.
type EmbeddedOptions struct {
	// Dir is created when it is not there, for the owner only.
	Dir string
	// MaxSize bounds the log in bytes. Beyond it the backend that is furthest behind
	// gives up its oldest events, unless a source can wait.
	MaxSize int64
	// WindowLimits are those of each backend; what does not fit waits on disk.
	WindowLimits
	// MaxLetters and MaxLetterBytes bound the dead letters: the oldest go.
	MaxLetters     int
	MaxLetterBytes int64
	// LockTimeout is how long to wait for another process; negative: not at all.
	LockTimeout time.Duration
	// SkipCorrupt goes on behind events that cannot be read, counted as lost,
	// instead of stopping in front of them.
	SkipCorrupt bool
	Log         *slog.Logger // nil: silent

	saveInterval time.Duration // shortened by tests
	segmentSize  int64         // the same
}

func (o *EmbeddedOptions) complete() {
	o.WindowLimits.complete()
	def(&o.MaxSize, DefaultMaxSize)
	def(&o.MaxLetters, DefaultMaxLetters)
	def(&o.MaxLetterBytes, DefaultMaxLetterBytes)
	def(&o.saveInterval, defaultSaveInterval)
	def(&o.segmentSize, min(max(o.MaxSize/segmentsWithinMaxSize, smallestSegment), segment.DefaultSegmentSize))
	if o.LockTimeout == 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}
