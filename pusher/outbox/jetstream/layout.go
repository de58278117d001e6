package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/pusher/outbox"
)

// names are those of everything in JetStream, all made of the prefix.
type names struct{ prefix string }

func (n names) log(partition int) string { return fmt.Sprintf("%s_LOG_%02d", n.prefix, partition) }

func (n names) logSubject(partition int) string {
	return n.prefix + ".log." + strconv.Itoa(partition)
}

func (n names) letters() string        { return n.prefix + "_LETTERS" }
func (n names) lettersSubject() string { return n.prefix + ".letters" }
func (n names) parked() string         { return n.prefix + "_PARKED" }
func (n names) state() string          { return n.prefix + "_state" }
func (n names) cluster() string        { return n.prefix + "_cluster" }

// parkedSubject is the place of a parked event. There is one message at each, so
// parking an event twice leaves one.
func (n names) parkedSubject(partition int, id outbox.ParkedID) string {
	class := "event"
	if id.Replay() {
		class = "replay"
	}
	return fmt.Sprintf("%s.%s.%d", n.parkedOf(partition, id.Reader()), class, id.Number())
}

// parkedOf is the common part of the places of a backend.
func (n names) parkedOf(partition int, reader uint8) string {
	return fmt.Sprintf("%s.parked.%d.%d", n.prefix, partition, reader)
}

// consumer names the consumer of a backend in each partition's stream.
func consumerName(backend string, reader uint8) string {
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, backend)
	return fmt.Sprintf("%.40s-%d", readable, reader)
}

// The keys of the state bucket.
const (
	keyMeta      = "meta"
	keyPositions = "positions"
)

func keyProgress(partition int, reader uint8) string {
	return fmt.Sprintf("progress.%d.%d", partition, reader)
}

// subject returns the subject of a key, for writing many at once.
func subject(bucket, key string) string { return "$KV." + bucket + "." + key }

// layout is everything that the outbox has in JetStream.
type layout struct {
	names   names
	logs    []js.Stream
	letters js.Stream
	parked  js.Stream
	state   js.KeyValue
	cluster js.KeyValue
}

// SettingsError says that a stream is there already and is not as it has to be.
type SettingsError struct {
	Stream   string
	Settings []string // each "what is X, and must be Y"
}

// Error implements error; it says what can be done.
func (e *SettingsError) Error() string {
	return fmt.Sprintf("outbox: the stream %s exists with other settings: %s. Correct them (nats stream edit), choose another prefix in [outbox.nats] stream, or delete the stream if it is not needed; it is never changed by itself",
		e.Stream, strings.Join(e.Settings, "; "))
}

// bucket is the configuration of a key-value bucket that is read through the
// stream's leader only: a replica that lags must not tell an instance where
// another one stood.
func bucket(name string, replicas int) js.StreamConfig {
	return js.StreamConfig{
		Name: "KV_" + name, Subjects: []string{subject(name, ">")}, Storage: js.FileStorage, Replicas: replicas,
		MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Discard: js.DiscardNew, AllowRollup: true, DenyDelete: true, Duplicates: 2 * time.Minute,
	}
}

// openLayout opens all streams and buckets, and creates those that are missing
// if it may.
func openLayout(ctx context.Context, j js.JetStream, o *Options, create bool) (*layout, error) {
	n := names{o.Prefix}
	l := &layout{names: n}
	plain := js.StreamConfig{
		Storage: js.FileStorage, Replicas: o.Replicas, Discard: js.DiscardNew, Duplicates: 2 * time.Minute,
		MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1, MaxMsgsPerSubject: -1,
	}
	var err error
	open := func(c js.StreamConfig) (s js.Stream) {
		if err == nil {
			s, err = openStream(ctx, j, c, create)
		}
		return s
	}
	// The state comes first: it says whether the others fit.
	for _, b := range []struct {
		name string
		kv   *js.KeyValue
	}{{n.state(), &l.state}, {n.cluster(), &l.cluster}} {
		if open(bucket(b.name, o.Replicas)); err == nil {
			*b.kv, err = j.KeyValue(ctx, b.name)
		}
	}
	for p := range o.Partitions {
		c := plain
		c.Name, c.Subjects = n.log(p), []string{n.logSubject(p)}
		c.Description = "eventpusher: accepted events"
		l.logs = append(l.logs, open(c))
	}
	c := plain
	c.Name, c.Subjects, c.MaxMsgsPerSubject = n.parked(), []string{n.prefix + ".parked.>"}, 1
	c.Description = "eventpusher: events that keep failing"
	// A place that is taken again takes the place of what was there.
	c.Discard = js.DiscardOld
	l.parked = open(c)
	c = plain
	c.Name, c.Subjects, c.Discard = n.letters(), []string{n.lettersSubject()}, js.DiscardOld
	c.MaxMsgs, c.MaxBytes = int64(o.MaxLetters), o.MaxLetterBytes
	c.Description = "eventpusher: dead letters"
	l.letters = open(c)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// openStream opens a stream, or creates it, and checks its settings.
func openStream(ctx context.Context, j js.JetStream, want js.StreamConfig, create bool) (js.Stream, error) {
	// Servers that have no leader yet do not answer at all.
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := j.Stream(ctx, want.Name)
	if errors.Is(err, js.ErrStreamNotFound) && create {
		s, err = j.CreateStream(ctx, want)
		if errors.Is(err, js.ErrStreamNameAlreadyInUse) { // somebody else was faster
			s, err = j.Stream(ctx, want.Name)
		}
	}
	if errors.Is(err, js.ErrStreamNotFound) {
		return nil, fmt.Errorf("outbox: there is none in NATS: %s: %w; run makes it", want.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: stream %s: %w", want.Name, explain(err))
	}
	if wrong := differences(want, s.CachedInfo().Config); len(wrong) > 0 {
		return nil, &SettingsError{Stream: want.Name, Settings: wrong}
	}
	return s, nil
}

// differences lists the settings on which correctness depends. Limits may be
// tighter or looser where only the kept amount depends on them.
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
	if want.MaxMsgs < 0 { // where nothing may be dropped
		differ("max_msgs", want.MaxMsgs, got.MaxMsgs)
	}
	if got.Sealed || got.Mirror != nil || got.NoAck {
		differ("sealed, mirror or no_ack", false, true)
	}
	return list
}
