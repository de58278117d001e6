package xmppside

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/store"
	"eventpusher/component"
	"eventpusher/component/trust"
	"eventpusher/event"
)

// everyone plays what is between instances, of which some may be silent.
type everyone struct {
	toLeader
	instances []*Users
	silent    int
	err       error
}

func (e *everyone) AskAll(ctx context.Context, question []byte) (answers [][]byte, err error) {
	for _, r := range e.instances {
		answers = append(answers, r.answerAll(ctx, question))
	}
	return answers, e.err
}

func (e *everyone) standing() int { return len(e.instances) + e.silent }

// heard plays the link of the instance that has it.
type heard struct{ oneLink }

func (*heard) Status() component.Status {
	return component.Status{Hosts: []trust.HostStatus{{Host: "x", Authority: map[trust.Class]string{trust.Messages: "event-feed"}}}}
}

// TestExplainEverywhere puts together what the instances know, each of its part.
func TestExplainEverywhere(t *testing.T) {
	kept, err := store.OpenRegistrations(filepath.Join(t.TempDir(), store.RegistrationsFile), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	start := time.UnixMicro(1_700_000_000_000_000).UTC()
	all := &everyone{}
	for i := range 2 {
		b := push.New(push.Options{Now: func() time.Time { return start.Add(time.Duration(3-i) * time.Second) }})
		b.Attach(kept, nil, nil)
		r := NewUsers(UsersOptions{Push: b, Relay: all, Instances: all.standing})
		r.Attach(&oneLink{})
		r.instance = string(rune('a' + i))
		// What the first one says was decided after what the second one says.
		b.Wants(&event.Event{Kind: event.Chat, Direction: event.Out, Type: "chat", User: "bob@x", ID: r.instance, Dialect: "event-feed"})
		all.instances = append(all.instances, r)
	}
	all.instances[0].Attach(&heard{})
	if err := kept.Enable(t.Context(), "bob@x", store.Service{PubSub: "push.x", Node: "n"}); err != nil {
		t.Fatal(err)
	}
	want := push.Explanation{
		User: "bob@x", Registrations: []push.Registered{{Service: "push.x", Node: "n", By: push.ByIQ}},
		Decisions: []journal.Decision{{Time: start.Add(2 * time.Second), EventID: "b", Outcome: "online", Count: 1}, {Time: start.Add(3 * time.Second), EventID: "a", Outcome: "online", Count: 1}},
		Feeds:     map[string]string{"message": "event-feed"},
	}
	for _, silent := range []int{0, 1} {
		all.silent, want.Silent = silent, silent
		for _, r := range all.instances {
			got, err := r.Explain(t.Context(), "bob@x")
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%s: %v\n%s", r.instance, err, diff)
			}
		}
	}
	second := all.instances[1]
	all.instances, all.err = all.instances[:1], errors.New("away")
	if e, err := second.Explain(t.Context(), "bob@x"); err != nil || len(e.Decisions) != 2 {
		t.Errorf("while others cannot be asked well: %+v, %v", e, err)
	}
	for _, question := range []string{"", "{}", `{"explain":1}`} {
		if b := second.answerAll(t.Context(), []byte(question)); b != nil {
			t.Errorf("%q was answered by %s", question, b)
		}
	}
}
