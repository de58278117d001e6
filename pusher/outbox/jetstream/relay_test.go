package jetstream_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"eventpusher/internal/harness"
	"eventpusher/pusher/outbox/jetstream"
)

// TestAsk puts questions to the instance that answers, and to nobody.
func TestAsk(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	first, second := open(t, o), open(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := second.Ask(ctx, []byte("?")); !errors.Is(err, jetstream.ErrNobody) {
		t.Errorf("before anybody answers: %v", err)
	}
	began := make(chan struct{}, 1)
	stop, err := first.Answer(func(ctx context.Context, question []byte) []byte {
		if string(question) == "wait" {
			began <- struct{}{}
			<-ctx.Done()
		}
		return append([]byte("re "), question...)
	})
	if err != nil {
		t.Fatal(err)
	}
	// The server knows of the subscription a moment later.
	await(t, "the first answer", func() bool {
		b, err := second.Ask(ctx, []byte("1"))
		return err == nil && string(b) == "re 1"
	})
	var asking sync.WaitGroup
	asking.Go(func() {
		if b, err := second.Ask(ctx, []byte("wait")); err != nil || string(b) != "re wait" {
			t.Errorf("the one under way: %q, %v", b, err)
		}
	})
	select {
	case <-began:
	case <-time.After(limit):
		t.Fatal("the question does not arrive")
	}
	if b, err := first.Ask(ctx, []byte("2")); err != nil || string(b) != "re 2" {
		t.Errorf("beside one that takes its time: %q, %v", b, err)
	}
	stop()
	asking.Wait()
	await(t, "the end", func() bool {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := second.Ask(short, []byte("3"))
		return errors.Is(err, jetstream.ErrNobody)
	})
}

// TestAskAll puts a question to every instance, of which one may be silent.
func TestAskAll(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	engines := map[string]*instance{"first": open(t, o), "second": open(t, o)}
	stop := make(map[string]func())
	for name, e := range engines {
		var err error
		if stop[name], err = e.AnswerAll(func(_ context.Context, question []byte) []byte { return []byte(name + " " + string(question)) }); err != nil {
			t.Fatal(err)
		}
		defer stop[name]()
	}
	answers := func(e *instance, timeout time.Duration) []string {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		got, err := e.AskAll(ctx, []byte("?"))
		if err != nil {
			t.Fatal(err)
		}
		list := make([]string, len(got))
		for i := range got {
			list[i] = string(got[i])
		}
		slices.Sort(list)
		return list
	}
	both := []string{"first ?", "second ?"}
	for name, e := range engines {
		await(t, "the answers that "+name+" gets", func() bool { return slices.Equal(answers(e, time.Second), both) })
	}
	stop["second"]()
	await(t, "the end of one", func() bool { return slices.Equal(answers(engines["second"], 100*time.Millisecond), both[:1]) })
	stop["first"]()
	await(t, "the end of both", func() bool { return len(answers(engines["first"], 100*time.Millisecond)) == 0 })
}
