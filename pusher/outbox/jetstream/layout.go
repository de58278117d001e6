package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// names are those of everything in JetStream, all made of the prefix.
type names struct{ prefix string }

func (n names) log() string        { return n.prefix + "_EVENTS" }
func (n names) logSubject() string { return n.prefix + ".events" }
func (n names) state() string      { return n.prefix + "_STATE" }
func (n names) letters() string    { return n.prefix + "_DEAD" }
func (n names) bell() string       { return n.prefix + ".tip" } // something is new

// In the state stream.
func (n names) meta() string                  { return n.prefix + ".state.meta" }
func (n names) cluster() string               { return n.prefix + ".state.cluster" }
func (n names) parts() string                 { return n.prefix + ".state.part." }
func (n names) part(p int) string             { return n.parts() + strconv.Itoa(p) }
func (n names) lists() string                 { return n.prefix + ".state.list." }
func (n names) parkedList(p int) string       { return n.lists() + strconv.Itoa(p) }
func (n names) lettersOf(owner string) string { return n.prefix + ".state.letter." + owner + "." }

// parkedOf is the common part of the subjects of a partition's parked events, of all backends.
func (n names) parkedOf(p int) string { return n.prefix + ".state.parked." + strconv.Itoa(p) + "." }
func (n names) replays() string       { return n.prefix + ".state.replay." }

// parked is the subject of a parked event. There is one message at each.
func (n names) parked(partition int, id outbox.ParkedID) string {
	if id.Replay() {
		return fmt.Sprintf("%s%d.%d.%d", n.replays(), partition, id.Reader(), id.Number())
	}
	return fmt.Sprintf("%s%d.%d", n.parkedOf(partition), id.Reader(), id.Number())
}

// layout is everything that the outbox has in JetStream.
type layout struct {
	names               names
	js                  js.JetStream
	log, state, letters *natsrpc.Store
}

// lastSeq returns the last sequence of the log.
func (l *layout) lastSeq(ctx context.Context) (uint64, error) {
	s, err := l.js.Stream(ctx, l.names.log())
	if err != nil {
		return 0, fmt.Errorf("outbox: stream %s: %w", l.names.log(), natsrpc.Explain(err))
	}
	return s.CachedInfo().State.LastSeq, nil
}

// SettingsError says that a stream is there already and is not as it has to be.
type SettingsError struct {
	Stream   string
	Settings []string // each "what is X, and must be Y"
}

// Error implements error; it says what can be done.
func (e *SettingsError) Error() string {
	return fmt.Sprintf("outbox: the stream %s exists with other settings: %s. Correct them (nats stream edit), choose another prefix in [outbox.nats] stream, or delete the stream if it is not needed; eventpusher does not change it",
		e.Stream, strings.Join(e.Settings, "; "))
}

// MinServer is the oldest nats-server that has what the outbox needs: atomic batches.
const MinServer = "2.12"

// ServerError says that a nats-server is too old.
type ServerError struct{ Found string }

// Error implements error; it says what can be done.
func (e *ServerError) Error() string {
	return fmt.Sprintf("outbox: nats-server %s is too old, %s or later is needed: upgrade every NATS server of the cluster", e.Found, MinServer)
}

// checkServer returns a *ServerError if the server cannot serve.
func checkServer(version string) error {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n == 2 && (major > 2 || major == 2 && minor >= 12) {
		return nil
	}
	return &ServerError{Found: version}
}

// streams are the configurations of all streams.
func (o *Options) streams() []js.StreamConfig {
	n := names{o.Prefix}
	plain := js.StreamConfig{
		Storage: js.FileStorage, Replicas: o.Replicas, Discard: js.DiscardOld, AllowDirect: true,
		MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1, MaxMsgsPerSubject: -1,
	}
	state, log, letters := plain, plain, plain
	state.Name, state.Subjects, state.MaxMsgsPerSubject = n.state(), []string{n.prefix + ".state.>"}, 1
	state.AllowAtomicPublish, state.AllowMsgTTL = true, true
	state.Description = "eventpusher: who delivers what and how far, parked events"
	log.Name, log.Subjects, log.Discard = n.log(), []string{n.logSubject()}, js.DiscardNew
	log.Description = "eventpusher: accepted events"
	letters.Name, letters.MaxMsgsPerSubject = n.letters(), 1
	letters.MaxMsgs, letters.MaxBytes = int64(o.MaxLetters), o.MaxLetterBytes
	letters.Sources = []*js.StreamSource{{Name: n.state(), FilterSubject: n.prefix + ".state.letter.>"}}
	letters.Description = "eventpusher: dead letters"
	return []js.StreamConfig{state, log, letters} // the state first: it says whether the others fit
}

// openLayout opens all streams, and creates those that are missing if it may.
func openLayout(ctx context.Context, nc *nats.Conn, j js.JetStream, o *Options, create bool) (*layout, error) {
	if err := checkServer(nc.ConnectedServerVersion()); err != nil {
		return nil, err
	}
	if create {
		if err := checkEarlier(ctx, j, o); err != nil {
			return nil, err
		}
	}
	n := names{o.Prefix}
	store := func(name string) *natsrpc.Store { return &natsrpc.Store{NC: nc, Stream: name} }
	l := &layout{names: n, js: j, log: store(n.log()), state: store(n.state()), letters: store(n.letters())}
	for _, c := range o.streams() {
		if create && c.Name == n.log() { // the numbers of one that was deleted must not come again
			last, err := l.highest(ctx)
			if err != nil {
				return nil, err
			}
			c.FirstSeq = last + 1
		}
		if err := openStream(ctx, j, c, create); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// openStream opens a stream, or creates it, and checks its settings.
func openStream(ctx context.Context, j js.JetStream, want js.StreamConfig, create bool) error {
	// Servers that have no leader yet do not answer at all.
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := j.Stream(ctx, want.Name)
	if errors.Is(err, js.ErrStreamNotFound) && create {
		s, err = j.CreateStream(ctx, want)
		if errors.Is(err, js.ErrStreamNameAlreadyInUse) { // another instance was faster
			s, err = j.Stream(ctx, want.Name)
		}
	}
	if errors.Is(err, js.ErrStreamNotFound) {
		return fmt.Errorf("outbox: there is none in NATS: %s: %w; run makes it", want.Name, err)
	}
	if err != nil {
		return fmt.Errorf("outbox: stream %s: %w", want.Name, natsrpc.Explain(err))
	}
	if wrong := differences(want, s.CachedInfo().Config); len(wrong) > 0 {
		return &SettingsError{Stream: want.Name, Settings: wrong}
	}
	return nil
}

// differences lists the settings on which correctness depends. Limits may be tighter or
// looser where only the kept amount depends on them.
func differences(want, got js.StreamConfig) (list []string) {
	differ := func(what string, want, got any) {
		if want != got {
			list = append(list, fmt.Sprintf("%s is %v, and must be %v", what, got, want))
		}
	}
	if !slices.Equal(want.Subjects, got.Subjects) {
		differ("subjects", fmt.Sprint(want.Subjects), fmt.Sprint(got.Subjects))
	}
	differ("retention", want.Retention, got.Retention)
	differ("storage", want.Storage, got.Storage)
	differ("replicas", want.Replicas, got.Replicas)
	differ("max_msgs_per_subject", want.MaxMsgsPerSubject, got.MaxMsgsPerSubject)
	differ("max_age", want.MaxAge, got.MaxAge)
	differ("discard policy", want.Discard, got.Discard)
	differ("allow_direct", want.AllowDirect, got.AllowDirect)
	differ("allow_atomic", want.AllowAtomicPublish, got.AllowAtomicPublish)
	differ("allow_msg_ttl", want.AllowMsgTTL, got.AllowMsgTTL)
	differ("sources", len(want.Sources), len(got.Sources))
	if want.MaxMsgs < 0 { // where nothing may be dropped
		differ("max_msgs", want.MaxMsgs, got.MaxMsgs)
	}
	if got.Sealed || got.Mirror != nil || got.NoAck {
		differ("sealed, mirror or no_ack", false, true)
	}
	return list
}

// EarlierError says that streams of an earlier eventpusher hold events.
type EarlierError struct {
	Prefix  string
	Streams []string // each with its number of messages
}

// Error implements error; it says what can be done.
func (e *EarlierError) Error() string {
	return fmt.Sprintf("outbox: streams of an earlier eventpusher hold events that this version does not read: %s. Run the earlier version until they are delivered ([component] may point nowhere), then remove its streams: %s",
		strings.Join(e.Streams, ", "), removal(e.Prefix))
}

// removal is the command that removes the streams of an earlier eventpusher.
func removal(prefix string) string {
	return fmt.Sprintf("for s in $(nats stream ls --names | grep -E '^(%[1]s_(LOG_[0-9]+|PARKED|LETTERS)|KV_%[1]s_(state|cluster))$'); do nats stream rm -f $s; done", prefix)
}

// checkEarlier looks for streams of format 1. Empty ones are named in the log.
func checkEarlier(ctx context.Context, j js.JetStream, o *Options) error {
	var full, empty []string
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	all := []string{o.Prefix + "_PARKED", o.Prefix + "_LETTERS"}
	for p := range MaxPartitions {
		all = append(all, fmt.Sprintf("%s_LOG_%02d", o.Prefix, p))
	}
	for n, name := range all {
		s, err := j.Stream(ctx, name)
		if errors.Is(err, js.ErrStreamNotFound) {
			if n >= 2 {
				break // they are numbered from 0
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("outbox: stream %s: %w", name, natsrpc.Explain(err))
		}
		if messages := s.CachedInfo().State.Msgs; messages > 0 {
			full = append(full, fmt.Sprintf("%s (%d messages)", name, messages))
		} else {
			empty = append(empty, name)
		}
	}
	if len(full) > 0 {
		return &EarlierError{Prefix: o.Prefix, Streams: full}
	}
	if len(empty) > 0 {
		o.Log.Warn("NATS keeps empty streams of an earlier eventpusher", "streams", empty, "remedy", removal(o.Prefix))
	}
	return nil
}
