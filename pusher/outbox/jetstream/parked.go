package jetstream

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"eventpusher/event"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// headerParked is what is known of a parked event without decoding it: when it was accepted
// (nanoseconds), how often it was tried, its key (base64).
const headerParked = "Eventpusher-Parked"

// parkedMessage is a parked event, or a replayed letter, as it is kept.
func parkedMessage(n names, partition int, p *outbox.ParkedEvent) *nats.Msg {
	m := natsrpc.NewMsg(n.parked(partition, p.ID), event.AppendBinary(nil, p.Event))
	m.Header.Set(headerParked, fmt.Sprintf("%d %d %s", p.Accepted.UnixNano(), p.Attempts, base64.StdEncoding.EncodeToString([]byte(p.Event.Key()))))
	return m
}

// readParked reads everything but the event.
func readParked(n names, r *natsrpc.Record) (p outbox.Restored, err error) {
	bad := fmt.Errorf("outbox: %s is not a parked event", r.Subject)
	rest, replay := strings.CutPrefix(r.Subject, n.replays())
	if !replay {
		rest, _ = strings.CutPrefix(r.Subject, n.prefix+".state.parked.")
	}
	parts := strings.Split(rest, ".")
	fields := strings.Fields(r.Header.Get(headerParked))
	if len(parts) != 3 || len(fields) != 3 || len(r.Data) == 0 {
		return p, bad
	}
	reader, err1 := strconv.ParseUint(parts[1], 10, 8)
	number, err2 := strconv.ParseUint(parts[2], 10, 64)
	accepted, err3 := strconv.ParseInt(fields[0], 10, 64)
	attempts, err4 := strconv.Atoi(fields[1])
	key, err5 := base64.StdEncoding.DecodeString(fields[2])
	if errors.Join(err1, err2, err3, err4, err5) != nil {
		return p, bad
	}
	p = outbox.Restored{ID: outbox.EventID(uint8(reader), number), Key: key, Accepted: time.Unix(0, accepted).UTC(), Attempts: attempts, Bytes: len(r.Data)}
	if replay {
		p.ID = outbox.ReplayID(uint8(reader), number)
	}
	return p, nil
}

// sortRestored sorts as Window.Restore wants it.
func sortRestored(list []outbox.Restored) {
	slices.SortFunc(list, func(a, b outbox.Restored) int { return cmp.Compare(string(a.ID[:]), string(b.ID[:])) })
}

// Bounds of a direct get of many records.
const (
	scanRecords = 256
	scanBytes   = 4 << 20
)

// scan calls visit with the records of a stream that match filter, from a sequence on, until
// there are no more or visit returns false. What is written meanwhile may be left out.
func scan(ctx context.Context, s *natsrpc.Store, filter string, from uint64, visit func(r *natsrpc.Record) (bool, error)) error {
	for {
		list, err := s.From(ctx, from, filter, scanRecords, scanBytes)
		if err != nil {
			return fmt.Errorf("outbox: %w", natsrpc.Explain(err))
		}
		if len(list) == 0 {
			return nil
		}
		for i := range list {
			if more, err := visit(&list[i]); err != nil || !more {
				return err
			}
		}
		from = list[len(list)-1].Seq + 1
	}
}
