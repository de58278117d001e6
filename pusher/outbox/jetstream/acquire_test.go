package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// replica answers direct gets as a replica does that lags until a moment.
type replica struct {
	records []natsrpc.Record
	until   time.Time
	behind  uint64 // the last sequence that it has while it lags
}

func (r *replica) answer(m *nats.Msg) {
	var q struct {
		MultiLast []string `json:"multi_last"`
		Next      string   `json:"next_by_subj"`
		Seq       uint64
	}
	if json.Unmarshal(m.Data, &q) != nil {
		return
	}
	wanted := func(subject string) bool {
		for _, filter := range append(q.MultiLast, q.Next) {
			if prefix, all := strings.CutSuffix(filter, ">"); filter == subject || all && strings.HasPrefix(subject, prefix) {
				return true
			}
		}
		return false
	}
	lags := time.Now().Before(r.until)
	latest := make(map[string]natsrpc.Record)
	for _, one := range r.records {
		if one.Seq >= q.Seq && wanted(one.Subject) && (!lags || one.Seq <= r.behind) {
			latest[one.Subject] = one
		}
	}
	for _, one := range latest {
		a := nats.NewMsg(m.Reply)
		for key, values := range one.Header {
			a.Header[key] = values
		}
		a.Header.Set(js.SubjectHeader, one.Subject)
		a.Header.Set(js.SequenceHeader, strconv.FormatUint(one.Seq, 10))
		a.Data = one.Data
		_ = m.RespondMsg(a) // the test sees it
	}
	end := nats.NewMsg(m.Reply)
	end.Header.Set("Status", "204")
	_ = m.RespondMsg(end) // the same
}

// lagging is a partition whose stream is a replica. Its leader has nothing.
func lagging(t *testing.T, r *replica) (*part, *layout) {
	t.Helper()
	server := harness.NATS(t, harness.NATSOptions{NoJetStream: true})
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	leader := func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"error":{"code":404,"err_code":10037,"description":"no message found"}}`)) // the test sees it
	}
	for subject, answer := range map[string]nats.MsgHandler{"DIRECT.GET": r.answer, "STREAM.MSG.GET": leader} {
		if _, err := nc.Subscribe("$JS.API."+subject+".LAG_STATE", answer); err != nil {
			t.Fatal(err)
		}
	}
	n, backend := names{"LAG"}, registration{number: 3, id: 9}
	parked := parkedMessage(n, 1, &outbox.ParkedEvent{ID: outbox.EventID(3, 7), Event: &event.Event{ID: "1", User: "u@h"}, Accepted: time.Unix(1, 0)})
	r.behind, r.records = 2, []natsrpc.Record{
		{Subject: n.parkedList(1), Seq: 1, Data: parkedList{backend: {5: 1}}.append(nil)},
		{Subject: n.part(1), Seq: 2, Data: (&register{owner: "former"}).append(nil)},
		{Subject: parked.Subject, Seq: 3, Header: parked.Header, Data: parked.Data},
		{Subject: n.part(1), Seq: 4, Data: (&register{owner: "me"}).append(nil)},
	}
	p := &part{e: &Engine{log: slog.New(slog.DiscardHandler)}, n: 1, seq: 4, list: parkedList{backend: {7: 2, 8: 1}}, ctx: t.Context()}
	return p, &layout{names: n, state: &natsrpc.Store{NC: nc, Stream: "LAG_STATE"}}
}

// A replica that lags for long has no say in which parked events are lost.
func TestParkedEventsOfAReplicaThatLags(t *testing.T) {
	t.Parallel()
	p, s := lagging(t, &replica{until: time.Now().Add(11 * time.Second)})
	ctx, cancel := context.WithTimeout(t.Context(), harness.WaitLimit)
	defer cancel()
	got, err := p.readParked(ctx, s, func(registration) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if list := got[3]; len(got) != 1 || len(list) != 1 || list[0].ID != outbox.EventID(3, 7) || list[0].Attempts != 2 {
		t.Errorf("got %+v", got)
	}
}

// A leader that was paused may not have a parked event yet. That does not make it lost.
func TestParkedEventOfAPausedLeader(t *testing.T) {
	t.Parallel()
	p, s := lagging(t, &replica{until: time.Now().Add(time.Second)})
	if e, err := p.load(s, outbox.EventID(3, 7)); err != nil || e.ID != "1" {
		t.Errorf("got %v, %v", e, err)
	}
	if _, err := p.load(s, outbox.EventID(3, 8)); !errors.Is(err, outbox.ErrLost) {
		t.Errorf("an event that was deleted: %v", err)
	}
}
