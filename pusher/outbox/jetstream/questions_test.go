package jetstream_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"eventpusher/internal/harness"
	"eventpusher/internal/natsrpc"
)

// TestAsk puts questions to the instance that answers, and to nobody.
func TestAsk(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	first, second := open(t, o), open(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := second.Ask(ctx, []byte("?")); !errors.Is(err, natsrpc.ErrNobody) {
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
		return errors.Is(err, natsrpc.ErrNobody)
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

// TestAskMoved: who holds the link dies over a question, and whoever asks hears of it as
// soon as another one has the link.
func TestAskMoved(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	var holders atomic.Int32
	one, two := open(t, o), open(t, o)
	first := one.lead(&holders, t)
	await(t, "the first leader", first.leading.Load)
	began := make(chan struct{}, 1)
	stop, err := one.Answer(func(ctx context.Context, _ []byte) []byte {
		began <- struct{}{}
		<-ctx.Done()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	second := two.lead(&holders, t)
	await(t, "the second to know the first", func() bool { return two.Standing().Leader != "" })
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	failed := make(chan error, 1)
	await(t, "a question that arrives", func() bool {
		go func() { _, err := two.Ask(ctx, []byte("?")); failed <- err }()
		select {
		case <-began:
			return true
		case err := <-failed: // the server does not know yet who answers
			if !errors.Is(err, natsrpc.ErrNobody) {
				t.Errorf("before the answerer is known: %v", err)
			}
			return false
		}
	})
	one.crash()
	stop()
	if err := <-failed; !errors.Is(err, natsrpc.ErrMoved) {
		t.Errorf("got %v", err)
	}
	await(t, "the second leader", second.leading.Load)
	second.end(t)
	first.stop()
}
