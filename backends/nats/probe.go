package nats

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"eventpusher/backends"
	"eventpusher/internal/finding"
)

// answerTimeout bounds one question of a probe.
const answerTimeout = 5 * time.Second

// Probe implements backends.Probing. It connects as for an event, and asks which stream
// takes the subjects of made-up events.
func (b *Backend) Probe(ctx context.Context) []finding.Finding {
	s, err := b.connect(ctx)
	if err != nil {
		remedy := "start the server, or correct url"
		if backends.Reason(err) == "paused" {
			remedy = ""
		}
		return []finding.Finding{finding.Failf(b.name, remedy, "%v", err)}
	}
	defer s.close()
	list := []finding.Finding{finding.Okf(b.name, "connected to NATS %s at %s", s.conn.ConnectedServerVersion(), s.server)}
	samples := b.chosen.Events.Samples()
	var streams, missing []string
	for i := range samples {
		subject, err := b.subject.of(&samples[i])
		if err != nil { // New has tried it
			continue
		}
		stream, err := s.streamOf(ctx, subject)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			if !slices.Contains(missing, subject) {
				missing = append(missing, subject)
			}
		case err != nil:
			return append(list, cannotAsk(b.name, err))
		case !slices.Contains(streams, stream):
			streams = append(streams, stream)
		}
	}
	if len(missing) > 0 {
		list = append(list, finding.Failf(b.name, "create a stream for them: nats stream add EVENTS --subjects='"+b.subject.wildcard()+"'",
			"no stream takes the subjects %s", strings.Join(missing, ", ")))
	}
	for _, name := range streams {
		list = append(list, b.examine(ctx, s, name))
	}
	return list
}

func (s *session) streamOf(ctx context.Context, subject string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return s.js.StreamNameBySubject(ctx, subject)
}

// cannotAsk says why the API of JetStream gave no answer.
func cannotAsk(name string, err error) finding.Finding {
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) || errors.Is(err, natsgo.ErrNoResponders) {
		return finding.Failf(name, "start nats-server with JetStream (-js), and enable it for the account", "there is no JetStream: %v", err)
	}
	return finding.Warnf(name, "let the user publish to $JS.API.STREAM.NAMES to have it looked at", "whether a stream takes the events is unknown: %v", err)
}

// examine looks at a stream that takes events.
func (b *Backend) examine(ctx context.Context, s *session, name string) finding.Finding {
	if b.stream != "" && name != b.stream {
		return finding.Failf(b.name, "correct stream or subject", "the stream %s takes the events, and not %s", name, b.stream)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	stream, err := s.js.Stream(ctx, name)
	if err != nil {
		return finding.Okf(b.name, "the stream %s takes the events", name)
	}
	c := stream.CachedInfo().Config
	switch {
	case c.Sealed:
		return finding.Failf(b.name, "create another stream", "the stream %s is sealed: it takes no more messages", name)
	case c.NoAck:
		return finding.Failf(b.name, "switch no_ack off", "the stream %s acknowledges nothing, so every event would be repeated", name)
	}
	return finding.Okf(b.name, "the stream %s takes the events, and recognises repeated ones for %v", name, c.Duplicates)
}
