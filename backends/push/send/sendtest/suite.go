// Package sendtest is what every notify.Sender must do. It is for tests only.
package sendtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/notify"
)

// Destination is a sender with the stand-in that it sends to.
type Destination struct {
	Sender       notify.Sender
	Target       notify.Target // one that the stand-in takes
	Notification notify.Notification
	// Taken returns how many notifications the stand-in has taken.
	Taken func() int
	// Answers make the stand-in answer the next request so, by backends.Reason. All senders
	// have those of gone, permanent and transient.
	Answers map[string]func()
	// Hold makes the stand-in answer the next request when release is closed, if at all.
	Hold func(release <-chan struct{})
	// Secrets are parts of target and notification that no error may show.
	Secrets []string
}

// Run runs the suite. start returns a new destination that lives as long as the test.
func Run(t *testing.T, start func(t *testing.T) Destination) {
	for name, test := range map[string]func(*testing.T, Destination){
		"taken": taken, "many at once": manyAtOnce, "another kind": anotherKind, "outlived": outlived, "the caller ends": callerEnds,
		"no answer in time": noAnswer,
	} {
		t.Run(name, func(t *testing.T) { test(t, start(t)) })
	}
	for _, reason := range []string{"gone", "permanent", "transient", "paused", "retry_after", "too_large"} {
		d := start(t)
		answer := d.Answers[reason]
		if answer == nil {
			if reason == "gone" || reason == "permanent" || reason == "transient" {
				t.Errorf("nothing is answered by %s", reason)
			}
			continue
		}
		t.Run(reason, func(t *testing.T) { d.answered(t, reason, answer) })
	}
}

func (d *Destination) send(ctx context.Context) error {
	return d.Sender.Send(ctx, d.Target, d.Notification)
}

// expect checks an error, and how many notifications were taken.
func (d *Destination) expect(t *testing.T, err error, reason string, taken int) {
	t.Helper()
	if got := backends.Reason(err); got != reason {
		t.Errorf("%v (%q), want %q", err, got, reason)
	}
	for _, secret := range d.Secrets {
		if strings.Contains(fmt.Sprint(err), secret) {
			t.Errorf("%v shows %q", err, secret)
		}
	}
	if got := d.Taken(); got != taken {
		t.Errorf("%d were taken, want %d", got, taken)
	}
}

func taken(t *testing.T, d Destination) { d.expect(t, d.send(t.Context()), "", 1) }

func manyAtOnce(t *testing.T, d Destination) {
	const many = 20
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			if err := d.send(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	d.expect(t, nil, "", many)
}

func anotherKind(t *testing.T, d Destination) {
	for _, kind := range []notify.Kind{notify.APNs, notify.FCM, notify.WebPush, notify.MongoosePush, notify.XMPP, ""} {
		if to := d.Target; kind != to.Kind {
			to.Kind = kind
			d.expect(t, d.Sender.Send(t.Context(), to, d.Notification), "permanent", 0)
		}
	}
}

func outlived(t *testing.T, d Destination) {
	d.Notification.Time, d.Notification.TTL = time.Now().Add(-time.Hour), time.Minute
	err := d.send(t.Context())
	d.expect(t, err, "permanent", 0)
	if !errors.Is(err, notify.ErrExpired) {
		t.Errorf("%v, want %v in it", err, notify.ErrExpired)
	}
}

func callerEnds(t *testing.T, d Destination) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.send(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v in it", err, context.Canceled)
	}
}

func noAnswer(t *testing.T, d Destination) {
	release := make(chan struct{})
	defer close(release)
	d.Hold(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	d.expect(t, d.send(ctx), "timeout", 0)
}

// answered checks what an answer means, and that it says nothing about the next notification.
func (d *Destination) answered(t *testing.T, reason string, answer func()) {
	answer()
	err := d.send(t.Context())
	d.expect(t, err, reason, 0)
	if reason == "gone" && !errors.As(err, new(*notify.DeadError)) {
		t.Errorf("%v is no DeadError", err)
	}
	d.expect(t, d.send(t.Context()), "", 1)
}
