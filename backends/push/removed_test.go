package push

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/store"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// removed is the end of bob's account at that time.
func removed(at time.Time) event.Event {
	return event.Event{ID: "gone", Kind: event.Removed, From: "bob@example.org", User: "bob@example.org", Time: at}
}

// TestAccountRemoved: with the account goes what it has registered, and nothing of others, nor of a
// new account of the name, however late the event comes and however often.
func TestAccountRemoved(t *testing.T) {
	f := newFixture(t, decide.Decider{Plugin: decide.Enhanced, Content: notify.ContentBody})
	f.now = time.Now().Truncate(time.Millisecond)
	ended := f.now.Add(time.Minute)
	_, registry := f.ownDevices(t)
	for owner, token := range map[jid.JID]string{"bob@example.org": "bobs", "carol@example.org": "carols", "": "nobodys"} {
		if _, err := registry.Register(t.Context(), devices.Request{Owner: owner, Kind: "fcm", Token: token}); err != nil {
			t.Fatal(err)
		}
	}
	enable := func(session jid.JID, node string) {
		t.Helper()
		payload := `<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='` + node + `'/>`
		if err := f.register(t, session, []byte(payload), f.now); err != nil {
			t.Fatal(err)
		}
	}
	left := func() []int {
		t.Helper()
		var n []int
		for _, owner := range []jid.JID{"bob@example.org", "carol@example.org"} {
			services, err := f.store.Services(t.Context(), owner)
			list, listErr := registry.List(t.Context(), owner)
			if err := errors.Join(err, listErr); err != nil {
				t.Fatal(err)
			}
			n = append(n, len(services), len(list))
		}
		return n
	}
	enable("bob@example.org/phone", "old")
	enable("bob@example.org/tablet", "older")
	enable("carol@example.org/phone", "hers")
	if err := f.publish(t, f.message("1")); err != nil { // makes it one unread
		t.Fatal(err)
	}
	f.network.take()

	if err := f.publish(t, removed(ended)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{0, 0, 1, 1}, left()); diff != "" {
		t.Errorf("registrations and devices of bob and carol (-want +got):\n%s", diff)
	}
	if list := f.Decisions("bob@example.org"); list[len(list)-1].Outcome != "account_removed" || list[len(list)-1].EventID != "gone" {
		t.Errorf("explained as %v", list)
	}

	// A new account, and then the event once more.
	f.now = ended.Add(time.Microsecond)
	enable("bob@example.org/phone", "new")
	if err := f.publish(t, f.message("2")); err != nil {
		t.Fatal(err)
	}
	if got := f.network.take(); len(got) != 1 || !strings.Contains(got[0], "node='new'") || !strings.Contains(got[0], "'message-count'><value>1<") {
		t.Errorf("the new account is told %q", got)
	}
	if err := f.publish(t, removed(ended)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"push.example.org new"}, f.nodes(t)); diff != "" {
		t.Errorf("of the new account (-want +got):\n%s", diff)
	}
	if n := f.Counts()["account_removed"]; n != 2 {
		t.Errorf("%d are counted", n)
	}
}

// TestLateRegistration is one that was received before the account's end and has waited
// since, while others were stored.
func TestLateRegistration(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	enable := func(session jid.JID, received time.Time) error {
		return f.register(t, session, []byte(`<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='n'/>`), received)
	}
	for _, at := range []time.Time{f.now, f.now.Add(-time.Hour)} { // an older end that comes again says nothing new
		if err := f.publish(t, removed(at)); err != nil {
			t.Fatal(err)
		}
	}
	var refusal *xmpp.Refusal
	if err := enable("bob@example.org/phone", f.now); !errors.As(err, &refusal) || *refusal != (xmpp.Refusal{Type: "cancel", Condition: "item-not-found"}) {
		t.Errorf("the old account is told %v", err)
	}
	if err := errors.Join(enable("carol@example.org/phone", f.now), enable("bob@example.org/phone", f.now.Add(time.Microsecond))); err != nil {
		t.Errorf("others are told %v", err)
	}
	if diff := cmp.Diff([]string{"push.example.org n"}, f.nodes(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// slowStore takes its time to store.
type slowStore struct {
	store.Registrations
	meanwhile func()
}

func (s *slowStore) Enable(ctx context.Context, owner jid.JID, service store.Service) error {
	s.meanwhile()
	return s.Registrations.Enable(ctx, owner, service)
}

// TestAccountEndsMeanwhile: what the store has only after it has removed the rest of an
// account does not stay.
func TestAccountEndsMeanwhile(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	store := &slowStore{Registrations: f.store}
	f.attach(store)
	end := removed(f.now.Add(time.Second))
	store.meanwhile = func() {
		if err := f.publish(t, end); err != nil {
			t.Error(err)
		}
	}
	payload := []byte(`<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='n'/>`)
	var refusal *xmpp.Refusal
	if err := f.register(t, "bob@example.org/phone", payload, f.now); !errors.As(err, &refusal) || *refusal != (xmpp.Refusal{Type: "cancel", Condition: "item-not-found"}) {
		t.Errorf("the old account is told %v", err)
	}
	if got := f.nodes(t); len(got) != 0 {
		t.Errorf("registered is %q", got)
	}
	if err := f.register(t, "bob@example.org/phone", payload, end.Time.Add(time.Second)); err != nil {
		t.Error(err)
	}
	if got := f.nodes(t); len(got) != 1 {
		t.Errorf("of the new account %q is registered", got)
	}
}

// failingStore cannot forget.
type failingStore struct {
	store.Registrations
	err error
}

func (s *failingStore) Forget(ctx context.Context, owner jid.JID, until time.Time) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.Registrations.Forget(ctx, owner, until)
}

// TestAccountRemovedAgain: while a store fails the event stays, and is tried again.
func TestAccountRemovedAgain(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	store := &failingStore{Registrations: f.store, err: errors.New("no database")}
	f.attach(store)
	f.enable(t, "push.example.org", "a", "")
	if err := f.publish(t, removed(f.now)); !errors.Is(err, store.err) {
		t.Errorf("got %v", err)
	}
	if len(f.nodes(t)) != 1 || f.Counts()["failed"] != 1 || f.Counts()["account_removed"] != 0 {
		t.Errorf("%v, counted %v", f.nodes(t), f.Counts())
	}
	store.err = nil
	if err := f.publish(t, removed(f.now)); err != nil {
		t.Error(err)
	}
	if len(f.nodes(t)) != 0 || f.Counts()["account_removed"] != 1 {
		t.Errorf("%v, counted %v", f.nodes(t), f.Counts())
	}
}
