package app

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/backends/push"
	"eventpusher/backends/push/decide"
	"eventpusher/component/eventfeed"
	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/outboxtest"
	"eventpusher/translator"
)

// packs is an outbox that shows what was committed.
type packs struct {
	*outbox.Embedded
	list chan outbox.Pack
}

func (p packs) Append(pack outbox.Pack) error {
	p.list <- outbox.Pack{Entries: slices.Clone(pack.Entries), Positions: pack.Positions}
	return p.Embedded.Append(pack)
}

// keptOnce hears once that something is kept.
type keptOnce chan []outbox.Position

func (k keptOnce) Kept(at []outbox.Position) { k <- at }
func (keptOnce) Refused(string)              {}

// taker wants what push wants, and does nothing with it.
type taker struct{ *push.Backend }

func (taker) Publish(_ context.Context, batch []event.Event) []error {
	return make([]error, len(batch))
}

// TestMissedInOneCommit: what all members of a room have missed by one message is
// committed at once, with the one position, for push alone; filters see each.
func TestMissedInOneCommit(t *testing.T) {
	const members, room = 1000, "tea@conference." + feedHost // as many as one report may name
	box := packs{outboxtest.Open(t), make(chan outbox.Pack, 10)}
	filters, problems := filter.Compile([]config.Filter{{
		Name: "not for one", Priority: 10, Keep: `event.kind == "missed" and event.user != "user7@` + feedHost + `"`,
	}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	chain, err := filter.NewChain(filters, filter.Metrics{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kept := make(keptOnce, 1)
	p, err := pusher.New(pusher.Options{
		Chain: chain, Outbox: box, Feeds: kept,
		Backends: []backends.Backend{taker{push.New(push.Options{Decider: decide.Decider{Plugin: decide.Defaults}})}, printer{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &trust.Fact{
		Stanza: stanza.Stanza{
			Kind: stanza.Message, From: room + "/Ally", To: room, Type: "groupchat", ID: "m1", Body: "Tea?", HasBody: true, Raw: "<message/>",
		},
		Feed: trust.EventFeed, Host: "conference." + feedHost,
		Report: stanza.Report{Kind: stanza.RoomMissed, Source: "s", Epoch: "e", Seq: 7},
	}
	for i := range members {
		s.Report.Members = append(s.Report.Members, jid.JID(fmt.Sprintf("user%d@%s", i, feedHost)))
	}
	f := &sink{translator: translator.New(translator.Options{Hosts: []string{feedHost}, MUCHosts: []string{"conference." + feedHost}}), pusher: p, box: box}
	if !f.Take(s, eventfeed.Position{Source: "s", Epoch: "e", Seq: 7}) {
		t.Fatal("it is not accepted")
	}

	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- p.Run(ctx) }()
	<-kept
	stop()
	<-ran
	pack := <-box.list
	if diff := cmp.Diff([]outbox.Position{{Source: "s", Epoch: "e", Seq: 7}}, pack.Positions); diff != "" || len(pack.Entries) != members-1 || len(box.list) != 0 {
		t.Errorf("%d events in the first of %d commits; %s", len(pack.Entries), 1+len(box.list), diff)
	}
	for _, e := range pack.Entries {
		if e.Event.Kind != event.Missed || e.Event.User == "user7@"+feedHost || !e.Subscribers.Has(0) || e.Subscribers.Has(1) {
			t.Fatalf("%+v", e)
		}
	}
}
