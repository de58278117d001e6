// Package outbox keeps accepted events until every backend that wants them has
// settled them, and hands them out so that order is kept within a key.
//
// What an engine promises is in the interfaces below. Memory is the engine
// without durability: what waits in it is lost with the process.
package outbox

import (
	"errors"
	"time"

	"eventpusher/event"
)

// MaxReaders is how many backends can read one outbox.
const MaxReaders = 64

// Subscribers says which readers get an event: bit n stands for the reader whose Number
// is n.
type Subscribers uint64

// Add marks reader n, 0 <= n < MaxReaders, as one that gets the event.
func (t *Subscribers) Add(n int) { *t |= 1 << n }

// Has reports whether reader n gets the event.
func (t Subscribers) Has(n int) bool { return t&(1<<n) != 0 }

// Entry is one event with its subscribers.
type Entry struct {
	// Event belongs to the outbox from now on and must not change any more.
	Event       *event.Event
	Subscribers Subscribers
}

// Pack is the unit of append: the events of one group commit, in order.
type Pack struct {
	Entries []Entry
	// Positions says how far the acknowledged feeds have come with this pack; the
	// other sources stand where they stood.
	Positions []Position
}

// Position is a place in the sequence of a source that wants to be told what
// has been accepted. Source and Epoch are opaque, Seq is below 1<<63.
type Position struct {
	Source string
	Epoch  string
	Seq    uint64
	// Complete says that everything up to here has been reported of the source's sessions.
	Complete bool
}

// ErrFull says that the outbox has reached its size and takes nothing from a
// source that can wait.
var ErrFull = errors.New("outbox: full")

// Outbox keeps accepted events.
type Outbox interface {
	// Reader opens the reader of a backend, at any time. A backend that the outbox does
	// not know begins with the next Append. notify is called, without any lock held,
	// whenever the reader may have more to take than before; it must not block. It is nil if
	// the backend is not configured, so that its events only wait: other instances that share
	// the outbox can then rename or forget it. It is an error if the backend is read already.
	// Reader may wait for the disk or the network.
	Reader(backend string, notify func()) (Reader, error)
	// Append accepts the pack: when it returns nil the engine keeps the events as
	// well as it ever will. It is called by one goroutine at a time, never waits
	// for a reader, and does not keep the slices. A pack with positions may be
	// refused with ErrFull, to be offered again later.
	Append(p Pack) error
	// Largest returns how many bytes an event may take, by event.BinarySize. It may change.
	// If a pack has a larger event, Append may fail, each time. It is safe for concurrent use.
	Largest() int
	// Positions returns how far each source had come in what has been accepted, in
	// the order of their names, of the MaxPositions that have moved last. It is safe
	// for concurrent use.
	Positions() []Position
	// Bury records events that no reader will ever see, such as those whose filter
	// failed, among the dead letters, as durably as Append does.
	Bury(letters ...DeadLetter) error
	// DeadLetters returns what is kept of events that will not be delivered.
	DeadLetters() DeadLetters
	// Replay gives the selected dead letters back to their backends and says how
	// many. Each goes to the backend that it died in, once more from the first
	// attempt, with Event.Replayed set and in no order with other events; it is no
	// dead letter any more. Those that no backend has seen, or whose backend is
	// not there, stay. It is safe for concurrent use.
	Replay(f LetterFilter) (int, error)
	// Backends returns what the outbox keeps for each backend, read or not, in the order of
	// their names. It may wait for the disk or the network.
	Backends() ([]BackendRecovery, error)
	// Rename gives what is kept for a backend, its dead letters excepted, to one that the
	// outbox does not know yet. The error wraps fs.ErrNotExist if nothing is kept for
	// from. It is an error if from is read, or configured at another instance, or to is known.
	Rename(from, to string) error
	// Forget removes what is kept for a backend, its dead letters excepted, and returns how
	// many events, or messages of a shared log, still had to be delivered. The error wraps
	// fs.ErrNotExist if nothing is kept for it. It is an error if the backend is read, or
	// configured at another instance.
	Forget(backend string) (int, error)
	// Err returns why the engine does not work as it should, nil when it does. It
	// is safe for concurrent use.
	Err() error
	// Close ends the engine. Nothing else may be called afterwards.
	Close() error
}

// Reader hands the events of one backend to its lanes. All methods are safe for
// concurrent use. None but Load and Expire waits for the disk or the network.
type Reader interface {
	// Number is the reader's bit in Subscribers. It never changes.
	Number() int
	// Take appends to dst at most limit events that are due, of each key at most
	// one and only when nothing of that key is unsettled, oldest first within the
	// key. If nothing is due and probe is set, it may take events whose
	// retry is not due yet, but never ones that a service has asked to wait for.
	// The Event of a parked item is nil until Load.
	// The time is when the next retry falls due (zero: no retry waits); more
	// says that another Take would find something now.
	Take(dst []*Item, limit int, probe bool) (taken []*Item, next time.Time, more bool)
	// Load reads the events of parked items, which Take has returned, and returns the
	// items whose event is there. The others have gone back, or are lost; the caller must
	// not touch them afterwards. It may wait for the disk or the network for some seconds.
	Load(items []*Item) []*Item
	// Settle says what became of taken items, which the caller must not touch
	// afterwards. An error means that the engine could not record it; the
	// events may then be handed out again after a restart.
	Settle(s []Settlement) error
	// Expire moves waiting events that were accepted before the given time to the
	// dead letters, with reason ReasonMaxAge, and says how many. It may leave some
	// for the next call; it returns 0 when there are none.
	Expire(before time.Time) (int, error)
	// RetryNow makes the retries due that wait for nothing but their backoff.
	RetryNow()
	// Stats says how much is waiting.
	Stats() Stats
	// Find returns events that wait and fulfil a condition; see Window.Find. It may wait for
	// the disk or the network.
	Find(match func(*event.Event) bool) []Found
	// Close ends the reader once its state is saved; it may wait for the disk or the
	// network. The caller holds no items any more. What waits stays for the next reader of
	// the backend, and so does what is appended for it until then.
	Close() error
}

// Item is an event in the hands of a lane.
type Item struct {
	Event    *event.Event // nil if it is parked and Load has not read it
	Key      uint64       // hash of Event.Key(): equal keys have equal hashes
	Accepted time.Time    // when Append was called
	Attempts int          // failures that counted so far

	bytes        int
	lane         *keyQueue
	behind       *Item // the next event of the key
	older, newer *Item // neighbours in order of acceptance
	taken        bool

	// Of durable engines only.
	window  *Window    // that has handed it out
	number  uint64     // place in the log
	parked  *parkedKey // what it is the head of; nil for an event of the log
	id      ParkedID   // the same
	since   time.Time  // of the first failure that counted
	takenAt time.Time
}

// Parked reports whether the event is one that has failed so often that it waits
// apart from the others, so that another failure says little about the service.
func (it *Item) Parked() bool { return it.parked != nil }

// Window returns what has handed the item out, nil if that is Memory.
func (it *Item) Window() *Window { return it.window }

// Outcome is what became of an item.
type Outcome uint8

// The outcomes of a delivery.
const (
	Delivered Outcome = iota // the service has it
	Retry                    // try again after Delay; the attempt counts
	Requeue                  // back as if it had never been taken, behind the other keys
	Dead                     // to the dead letters
)

// Settlement is the outcome of one item.
type Settlement struct {
	Item    *Item
	Outcome Outcome
	Delay   time.Duration // Retry: how long the key rests
	Asked   bool          // Retry: the service asked for the delay, so RetryNow and probe leave it
	Reason  string        // Dead: class of the reason, as in metrics
	Err     error         // Dead: the last error
}

// Stats is a snapshot of one reader.
type Stats struct {
	Waiting  int       // events that no lane holds
	InFlight int       // events that lanes hold
	Parked   int       // those of both that wait apart because they, or what comes before them, keep failing
	Bytes    int64     // estimated memory of all
	Oldest   time.Time // when the oldest of all was accepted; zero when there is none
	Shed     uint64    // events given up because the outbox was full
	Lost     uint64    // events that could not be read any more
	// Coming says that there is something to take, now or as soon as the disk has
	// done its work. Only durable engines know.
	Coming bool
}
