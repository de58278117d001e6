package push

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/registration"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/store"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// services plays the push services: it notes what comes and answers as told.
type services struct {
	mu     sync.Mutex
	got    []string
	answer func(to jid.JID, payload string) error
}

// Generic is true of pubsub.*, and nobody answers for silent.*.
func (s *services) Generic(_ context.Context, service jid.JID) (bool, error) {
	if strings.HasPrefix(string(service), "silent.") {
		return false, context.DeadlineExceeded
	}
	return strings.HasPrefix(string(service), "pubsub."), nil
}

func (s *services) Set(_ context.Context, to jid.JID, payload []byte) error {
	s.mu.Lock()
	s.got = append(s.got, string(to)+" "+string(payload))
	answer := s.answer
	s.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(to, string(payload))
}

// take returns what has come, sorted: the services of a user are told at once.
func (s *services) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := slices.Sorted(slices.Values(s.got))
	s.got = nil
	return got
}

// gateway plays MongoosePush.
type gateway struct {
	mu    sync.Mutex
	got   []notify.Notification
	err   error
	needs string // a publish-option
}

func (g *gateway) lacks(options []notify.Field) []string {
	if g.needs == "" || notify.Value(options, g.needs) != "" {
		return nil
	}
	return []string{g.needs}
}

func (g *gateway) Send(_ context.Context, _ notify.Target, n notify.Notification) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got = append(g.got, n)
	return g.err
}

type fixture struct {
	*Backend
	network *services
	gateway *gateway
	now     time.Time
	// queued is what the backend has made of messages and not delivered yet.
	queued []event.Event
}

func newFixture(t testing.TB, d decide.Decider) *fixture {
	t.Helper()
	kept, err := store.OpenRegistrations(filepath.Join(t.TempDir(), store.RegistrationsFile), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kept.Close() })
	f := &fixture{network: &services{}, gateway: &gateway{}, now: time.Now().Truncate(time.Second)}
	f.Backend = New(Options{
		Decider: d, Virtual: []string{"pubsub.@HOST@"}, Gateway: f.gateway, Lacks: f.gateway.lacks,
		Now: func() time.Time { return f.now },
	})
	f.attach(kept)
	return f
}

// attach attaches the backend, with an outbox that takes everything.
func (f *fixture) attach(kept store.Registrations) {
	f.Attach(kept, f.network, func(_ context.Context, list []event.Event) error {
		f.queued = append(f.queued, list...)
		return nil
	})
}

var asMongooseIM = decide.Decider{Plugin: decide.Defaults, Content: notify.ContentBody}

// register carries out an enable or disable of a session.
func (f *fixture) register(t testing.TB, session jid.JID, payload []byte, received time.Time) error {
	t.Helper()
	var e registration.Element
	if err := xml.Unmarshal(payload, &e); err != nil {
		t.Fatal(err)
	}
	r, err := e.Request()
	if wrong := (*decide.RulesError)(nil); errors.As(err, &wrong) {
		return &xmpp.Refusal{Type: "modify", Condition: wrong.Condition}
	}
	if err != nil {
		return &xmpp.Refusal{Type: "modify", Condition: "bad-request"} // as clients are told
	}
	return f.Register(context.Background(), session, r, received)
}

// enable registers a node of bob's.
func (f *fixture) enable(t testing.TB, pubsub, node, form string) {
	t.Helper()
	payload := `<enable xmlns='urn:xmpp:push:0' jid='` + pubsub + `' node='` + node + `'>` + form + `</enable>`
	if err := f.register(t, "bob@example.org/phone", []byte(payload), f.now); err != nil {
		t.Fatal(err)
	}
}

// message is one from alice to bob, who is offline.
func (f *fixture) message(id string) event.Event {
	return event.Event{
		ID: "e-" + id, Kind: event.Chat, Type: "chat", Direction: event.Out, From: "alice@example.org/desk", To: "bob@example.org",
		User: "bob@example.org", Body: "OH, HAI!", HasBody: true, Class: event.Content, RecipientOffline: true, StanzaID: id, Time: f.now, Dialect: "event-feed",
	}
}

func (f *fixture) publish(t testing.TB, e event.Event) error {
	t.Helper()
	if !f.Wants(&e) {
		return nil
	}
	if err := f.Publish(context.Background(), []event.Event{e})[0]; err != nil {
		return err
	}
	return f.deliver()
}

// deliver has each notification that waits delivered, or tried once.
func (f *fixture) deliver() error {
	list := f.queued
	f.queued = nil
	var errs []error
	for i := range list {
		if err := f.Publish(context.Background(), list[i:i+1])[0]; err != nil {
			f.queued = append(f.queued, list[i])
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (f *fixture) nodes(t testing.TB) (nodes []string) {
	t.Helper()
	list, err := f.store.Services(context.Background(), "bob@example.org")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		nodes = append(nodes, string(s.PubSub)+" "+s.Node)
	}
	return nodes
}

const options = `<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='secret'><value>&lt;s&apos;&gt;</value></field></x>`

// TestPublishIQ compares with what MongooseIM sends.
func TestPublishIQ(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "push.example.org", "no&amp;de", "")
	f.enable(t, "push.example.net", "2", options)
	if err := f.publish(t, f.message("1")); err != nil {
		t.Fatal(err)
	}
	summary := `<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'>` +
		`<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>` +
		`<field var='message-count'><value>1</value></field>` +
		`<field var='last-message-sender'><value>alice@example.org</value></field>` +
		`<field var='last-message-body'><value>OH, HAI!</value></field></x></notification></item></publish>`
	want := []string{
		`push.example.net <pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='2'>` + summary +
			`<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>` +
			`<field var='secret'><value>&lt;s&#39;&gt;</value></field></x></publish-options></pubsub>`,
		`push.example.org <pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='no&amp;de'>` + summary + `</pubsub>`,
	}
	if diff := cmp.Diff(want, f.network.take()); diff != "" {
		t.Error(diff)
	}
}

func TestVirtualHosts(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "pubsub.example.org", "a", "")
	f.enable(t, "pubsub.example.net", "b", "") // another host's
	if err := f.publish(t, f.message("1")); err != nil {
		t.Fatal(err)
	}
	if len(f.gateway.got) != 1 || len(f.network.take()) != 1 {
		t.Errorf("gateway got %+v", f.gateway.got)
	}
	f.gateway.err = fmt.Errorf("410: %w", backends.ErrGone)
	if err := f.publish(t, f.message("2")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"pubsub.example.net b"}, f.nodes(t)); diff != "" {
		t.Error(diff)
	}
}

// TestAnswers says what each answer of a service does to the registration and to
// the event.
func TestAnswers(t *testing.T) {
	later := backends.RetryAfter(time.Minute, errors.New("busy"))
	for name, c := range map[string]struct {
		answer error
		kept   bool
		again  bool
		count  journal.Outcome
	}{
		"result":              {nil, true, false, journal.Pushed},
		"cancel":              {&xmpp.Refusal{Type: "cancel", Condition: "item-not-found"}, false, false, journal.Disabled},
		"cancel, gone":        {&xmpp.Refusal{Type: "cancel", Condition: "gone"}, false, false, journal.Disabled},
		"no such server":      {&xmpp.Refusal{Type: "cancel", Condition: "remote-server-not-found"}, true, false, journal.Refused},
		"nobody there":        {&xmpp.Refusal{Type: "cancel", Condition: "service-unavailable"}, true, false, journal.Refused},
		"not allowed":         {&xmpp.Refusal{Type: "cancel", Condition: "not-allowed"}, true, false, journal.Refused},
		"not found, of auth":  {&xmpp.Refusal{Type: "auth", Condition: "item-not-found"}, true, false, journal.Refused},
		"auth":                {&xmpp.Refusal{Type: "auth", Condition: "forbidden"}, true, false, journal.Refused},
		"modify":              {&xmpp.Refusal{Type: "modify", Condition: "bad-request"}, true, false, journal.Refused},
		"continue":            {&xmpp.Refusal{Type: "continue", Condition: "undefined-condition"}, true, false, journal.Refused},
		"wait":                {&xmpp.Refusal{Type: "wait", Condition: "remote-server-timeout"}, true, true, journal.Failed},
		"no answer":           {fmt.Errorf("no answer: %w", context.DeadlineExceeded), true, true, journal.TimedOut},
		"no link":             {errors.New("not attached"), true, true, journal.Failed},
		"asked for a pause":   {later, true, true, journal.Failed},
		"will never do":       {backends.Permanent(errors.New("too odd")), true, false, journal.Refused},
		"device gone, nested": {fmt.Errorf("x: %w", backends.ErrGone), false, false, journal.Disabled},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, asMongooseIM)
			f.enable(t, "push.example.org", "a", "")
			f.network.answer = func(jid.JID, string) error { return c.answer }
			err := f.publish(t, f.message("1"))
			if (err != nil) != c.again {
				t.Errorf("error %v", err)
			}
			if c.answer == later && !errors.As(err, new(*backends.RetryAfterError)) {
				t.Errorf("the pause was lost: %v", err)
			}
			if kept := len(f.nodes(t)) == 1; kept != c.kept {
				t.Errorf("kept %v", kept)
			}
			if n := f.Counts()[string(c.count)]; n != 1 {
				t.Errorf("counts %v", f.Counts())
			}
			// The next attempt tells those who were not told, and nobody twice.
			f.network.take()
			f.network.answer = nil
			if err := f.deliver(); err != nil {
				t.Error(err)
			}
			if told := len(f.network.take()) == 1; told != c.again {
				t.Errorf("told again: %v", told)
			}
		})
	}
}

// TestOneMessageOnce: the events of one message make one notification for each
// service, whatever becomes of it at another one.
func TestOneMessageOnce(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "good.example.org", "a", "")
	f.enable(t, "ill.example.net", "a", "")
	f.network.answer = func(to jid.JID, _ string) error {
		if to == "ill.example.net" {
			return &xmpp.Refusal{Type: "wait", Condition: "resource-constraint"}
		}
		return nil
	}
	e := f.message("1")
	if err := f.publish(t, e); err == nil || len(f.queued) != 1 {
		t.Fatalf("%v: the failure of one service was lost", err)
	}
	id := f.queued[0].ID
	for range 2 {
		if err := f.deliver(); err == nil {
			t.Fatal("the failure of one service was lost")
		}
	}
	stored := e
	stored.ID, stored.Kind, stored.Direction = "e-2", event.Stored, event.NoDirection
	f.network.answer = nil
	if err := f.publish(t, stored); err != nil {
		t.Fatal(err)
	}
	told := map[string]int{}
	for _, line := range f.network.take() {
		var to string
		fmt.Sscan(line, &to)
		told[to]++
	}
	if diff := cmp.Diff(map[string]int{"good.example.org": 1, "ill.example.net": 4}, told); diff != "" {
		t.Error(diff)
	}
	other := f.message("2")
	if err := f.publish(t, other); err != nil || len(f.network.take()) != 2 {
		t.Error("another message was taken for the same", err)
	}

	// After a restart a message that comes again makes the same events again.
	next := New(f.o)
	f.Backend, next = next, f.Backend
	f.attach(next.store)
	if err := f.Publish(t.Context(), []event.Event{e})[0]; err != nil || len(f.queued) != 2 {
		t.Fatal(err, f.queued)
	}
	if got := []string{f.queued[0].ID, f.queued[1].ID}; got[1] != id || got[0] == id || len(id) != 32 {
		t.Errorf("the ids are %q, want %s among them", got, id)
	}
}

// TestOneAppend: however many registrations a user has, a message is one append, all of it
// or nothing.
func TestOneAppend(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	for i := range store.MaxPerUser {
		f.enable(t, fmt.Sprintf("push%d.example", i/8), fmt.Sprint(i), "")
	}
	var appended []int
	full := errors.New("the disk is full")
	f.forward = func(_ context.Context, list []event.Event) error {
		appended = append(appended, len(list))
		return full
	}
	e := f.message("1")
	if err := f.Publish(t.Context(), []event.Event{e})[0]; !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	f.forward = func(_ context.Context, list []event.Event) error {
		appended = append(appended, len(list))
		return nil
	}
	if err := f.Publish(t.Context(), []event.Event{e})[0]; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]int{64, 64}, appended); diff != "" {
		t.Error(diff)
	}
	if c := f.Counts(); c["queued"] != 64 || c["failed"] != 64 {
		t.Errorf("counted %v", c)
	}
}

func TestNobodyIsTold(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "push.example.org", "a", "")
	for name, c := range map[string]struct {
		change func(*event.Event)
		want   journal.Outcome
	}{
		"online":   {func(e *event.Event) { e.RecipientOffline = false }, journal.Outcome(decide.Online)},
		"unclear":  {func(e *event.Event) { e.RecipientOffline, e.Unverified = false, true }, journal.Outcome(decide.Unclear)},
		"no feed":  {func(e *event.Event) { e.RecipientOffline, e.Dialect = false, "firewall" }, journal.Outcome(decide.CannotTell)},
		"no body":  {func(e *event.Event) { e.Body = "" }, journal.Outcome(decide.NoBody)},
		"headline": {func(e *event.Event) { e.Type = "headline" }, journal.Outcome(decide.WrongType)},
		"too old":  {func(e *event.Event) { e.Time = f.now.Add(-DefaultMaxAge - 1) }, journal.Outcome(decide.Expired)},
		"own":      {func(e *event.Event) { e.From = "bob@example.org/desk" }, journal.Outcome(decide.OwnMessage)},
		"nobody":   {func(e *event.Event) { e.User = "carol@example.org" }, journal.NotEnabled},
	} {
		t.Run(name, func(t *testing.T) {
			e := f.message(name)
			c.change(&e)
			before := f.Counts()[string(c.want)]
			if err := f.publish(t, e); err != nil {
				t.Fatal(err)
			}
			if got := f.network.take(); len(got) != 0 {
				t.Errorf("told %q", got)
			}
			if f.Counts()[string(c.want)] != before+1 {
				t.Errorf("counts %v", f.Counts())
			}
			list := f.Decisions(e.User)
			if len(list) == 0 || list[len(list)-1].Outcome != string(c.want) || list[len(list)-1].EventID != e.ID {
				t.Errorf("decisions %v", list)
			}
		})
	}
}

// TestUnacked: with the enhanced plugin the device that the session has enabled
// is told at once, and no other.
func TestUnacked(t *testing.T) {
	f := newFixture(t, decide.Decider{Plugin: decide.Enhanced, Content: notify.ContentBody})
	register := func(session jid.JID, what, node string) {
		t.Helper()
		payload := `<` + what + ` xmlns='urn:xmpp:push:0' jid='push.example.org' node='` + node + `'/>`
		if err := f.register(t, session, []byte(payload), f.now); err != nil {
			t.Fatal(err)
		}
	}
	unacked := func(session jid.JID, id string) event.Event {
		e := f.message(id)
		e.Kind, e.Direction, e.RecipientOffline, e.To = event.Unack, event.NoDirection, false, session
		return e
	}
	nodes := func(e event.Event) int {
		t.Helper()
		if err := f.publish(t, e); err != nil {
			t.Fatal(err)
		}
		return len(f.network.take())
	}
	register("bob@example.org/1", "enable", "one")
	register("bob@example.org/2", "enable", "two")
	if n := nodes(unacked("bob@example.org/1", "m1")); n != 1 {
		t.Errorf("told %d devices", n)
	}
	if n := nodes(unacked("bob@example.org/1", "m1")); n != 0 {
		t.Errorf("told %d devices again", n)
	}
	if n := nodes(unacked("bob@example.org/3", "m2")); n != 0 {
		t.Errorf("a session that has enabled nothing: told %d", n)
	}
	register("bob@example.org/1", "disable", "one")
	if n := nodes(unacked("bob@example.org/1", "m3")); n != 0 {
		t.Errorf("after disable: told %d", n)
	}
	if n := nodes(unacked("bob@example.org/2", "m3")); n != 1 {
		t.Errorf("another session's disable: told %d", n)
	}
	// After a restart, and where another instance has taken the request.
	next := New(f.o)
	f.Backend, next = next, f.Backend
	f.attach(next.store)
	if n := nodes(unacked("bob@example.org/2", "m4")); n != 1 {
		t.Errorf("a session of before: told %d", n)
	}
	if n := nodes(unacked("bob@example.org/1", "m4")); n != 0 {
		t.Errorf("a session of before that has disabled: told %d", n)
	}
	plain := newFixture(t, asMongooseIM)
	if e := unacked("bob@example.org/1", "m1"); plain.Wants(&e) {
		t.Error("the default plugin wants unacknowledged messages")
	}
}

// TestTwoSessionsInResume: both devices of a user have vanished, and one message
// concerns both. MongooseIM notifies each of them again when a session ends
// (double_notification_with_two_sessions_in_resume); here each knows once.
func TestTwoSessionsInResume(t *testing.T) {
	f := newFixture(t, decide.Decider{Plugin: decide.Enhanced, Content: notify.ContentBody})
	for session, node := range map[jid.JID]string{"bob@example.org/1": "one", "bob@example.org/2": "two"} {
		payload := `<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='` + node + `'/>`
		if err := f.register(t, session, []byte(payload), f.now); err != nil {
			t.Fatal(err)
		}
	}
	e := f.message("m")
	told := func(kind event.Kind, to jid.JID) string {
		t.Helper()
		e.Kind, e.Direction, e.To, e.RecipientOffline = kind, event.NoDirection, to, kind == event.Stored
		if err := f.publish(t, e); err != nil {
			t.Fatal(err)
		}
		nodes := ""
		for _, got := range f.network.take() {
			_, node, _ := strings.Cut(got, "node='")
			nodes += node[:3]
		}
		return nodes
	}
	got := []string{
		told(event.Unack, "bob@example.org/1"), told(event.Unack, "bob@example.org/2"),
		told(event.Unack, "bob@example.org/2"), // routed on when session 1 ends
		told(event.Stored, "bob@example.org"),  // when session 2 does
	}
	if diff := cmp.Diff([]string{"one", "two", "", ""}, got); diff != "" {
		t.Error(diff)
	}
}

// TestUnread: messages are counted by conversation, once each, until the recipient
// is back or has written.
func TestUnread(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "push.example.org", "a", "")
	push := func(from jid.JID, id string) string {
		t.Helper()
		e := f.message(id)
		e.From = from
		f.Backend.o.Virtual, f.gateway.got = []string{"push.example.org"}, nil
		if err := f.publish(t, e); err != nil || len(f.gateway.got) != 1 {
			t.Fatal(err, f.gateway.got)
		}
		read, err := notify.ReadElement(f.gateway.got[0].Element)
		if err != nil {
			t.Fatal(err)
		}
		return read.Form.Value("message-count")
	}
	happens := func(e event.Event) {
		if f.Wants(&e) {
			t.Errorf("wants %+v", e)
		}
	}
	var got []string
	got = append(got, push("alice@example.org/1", "1"), push("alice@example.org/2", "2"), push("carol@example.org/1", "3"))
	happens(event.Event{Kind: event.Chat, Type: "chat", Direction: event.In, From: "bob@example.org/x", User: "bob@example.org", To: "alice@example.org/1"})
	got = append(got, push("alice@example.org/1", "4"), push("carol@example.org/1", "5"))
	happens(event.Event{Kind: event.UserStatus, Type: "offline", User: "bob@example.org"})
	got = append(got, push("carol@example.org/1", "6"))
	happens(event.Event{Kind: event.UserStatus, Type: "online", Online: true, User: "bob@example.org"})
	got = append(got, push("carol@example.org/1", "7"))
	want := []string{"1", "2", "1", "1", "2", "3", "1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestUnreadCountsOnce: what was not acknowledged counts then, and not again when it is
// stored, after others of the conversation.
func TestUnreadCountsOnce(t *testing.T) {
	f := newFixture(t, decide.Decider{Plugin: decide.Enhanced, Content: notify.ContentBody})
	f.enable(t, "push.example.org", "phone", "")
	payload := "<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='tablet'/>"
	if err := f.register(t, "bob@example.org/tablet", []byte(payload), f.now); err != nil {
		t.Fatal(err)
	}
	var got []string
	f.network.answer = func(_ jid.JID, payload string) error {
		_, node, _ := strings.Cut(payload, "node='")
		_, count, _ := strings.Cut(payload, "'message-count'><value>")
		got = append(got, node[:5]+" "+count[:1])
		return nil
	}
	for _, kind := range []event.Kind{event.Unack, event.Stored} {
		for _, id := range []string{"1", "2", "3"} {
			e := f.message(id)
			e.ID, e.Kind, e.Direction, e.RecipientOffline = fmt.Sprint(kind, id), kind, event.NoDirection, kind == event.Stored
			if kind == event.Unack {
				e.To = "bob@example.org/phone"
			}
			if err := f.publish(t, e); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []string{"phone 1", "phone 2", "phone 3", "table 3", "table 3", "table 3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRegisterRefuses(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	var refusal *xmpp.Refusal
	for i := range store.MaxPerUser {
		f.enable(t, fmt.Sprintf("push%d.example", i/maxAtDomain), fmt.Sprint(i), "")
	}
	err := f.register(t, "bob@example.org/1", []byte("<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='more'/>"), f.now)
	if !errors.As(err, &refusal) || refusal.Type != "wait" {
		t.Errorf("got %v", err)
	}
	if n, err := f.Remove(context.Background(), "bob@example.org", "", ""); n != store.MaxPerUser || err != nil || len(f.nodes(t)) != 0 {
		t.Error("removed by command:", n, err)
	}
}
