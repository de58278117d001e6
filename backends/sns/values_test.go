package sns_test

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/shorten"
	"eventpusher/backends/sns"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
)

// compile knows a few expressions.
func compile(src string) (func(*event.Event) (any, error), error) {
	known := map[string]func(e *event.Event) (any, error){
		"local":   func(e *event.Event) (any, error) { local, _, _ := strings.Cut(string(e.User), "@"); return local, nil },
		"count":   func(*event.Event) (any, error) { return int64(7), nil },
		"body":    func(e *event.Event) (any, error) { return e.Body, nil },
		"nothing": func(*event.Event) (any, error) { return nil, errors.New("there is no value") },
	}
	if f := known[src]; f != nil {
		return f, nil
	}
	return nil, errors.New("unknown name")
}

// startCompiled is startBackend with expressions.
func startCompiled(t *testing.T, change func(*config.SNS)) (*fakeSNS, *sns.Backend) {
	t.Helper()
	f := startFake(t)
	c := options(f.server.URL)
	change(&c)
	b, err := sns.New(sns.Options{Name: sns.Name, Section: c, Hosts: []string{"localhost"}, Compile: compile, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return f, b
}

func TestUserGUID(t *testing.T) {
	f, b := startCompiled(t, func(c *config.SNS) { c.UserGUID = "local" })
	chat := event.Event{ID: "1", Kind: event.Chat, Type: "chat", Direction: event.In, From: "alice@localhost/r", To: "bob@localhost/x", User: "alice@localhost", Body: "hi", HasBody: true}
	online := event.Event{ID: "2", Kind: event.UserStatus, From: "carol@localhost/r", User: "carol@localhost", Online: true}
	for i, err := range b.Publish(t.Context(), []event.Event{chat, online}) {
		if err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
	got := map[string]string{}
	for _, m := range f.messages() {
		got[strings.TrimPrefix(m.Topic, arn)] = m.Message
	}
	want := map[string]string{
		"user_message_sent":     `{"to_user_id":"bob","message":"hi","from_user_id":"alice"}`,
		"user_presence_updated": `{"user_id":"carol","present":true}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestConfiguredAttributes(t *testing.T) {
	f, b := startCompiled(t, func(c *config.SNS) {
		c.EventAttributes, c.MessageAttributes = true, map[string]string{"count": "count", "who": "local", "lost": "nothing", "event_kind": "body"}
	})
	e := backendtest.Message(0)
	e.Metadata = event.Metadata{"who": "metadata", "env": "prod"}
	if err := b.Publish(t.Context(), []event.Event{e})[0]; err != nil {
		t.Fatal(err)
	}
	local, _, _ := strings.Cut(string(e.User), "@")
	want := map[string]string{
		"event_id": "String:" + e.ID, "event_sort": "String:chat.in", "event_kind": "String:chat", "event_type": "String:chat", "event_direction": "String:in",
		"count": "Number:7", "who": "String:" + local, "env": "String:prod",
	}
	if diff := cmp.Diff(want, f.messages()[0].Attributes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := b.Counts()["attributes_cut"]; n != 1 {
		t.Errorf("%d attributes left out, want the one without a value", n)
	}
}

// TestEmulatorSubject: subjects arrive, in one line of 99 characters at most, and so do the
// event's attributes.
func TestEmulatorSubject(t *testing.T) {
	e := harness.SNS(t)
	topic := e.CreateTopic("events")
	c := options(e.Endpoint())
	c.Region, c.Topic, c.Subject, c.EventAttributes = e.Region, topic, "body", true
	b, err := sns.New(sns.Options{Name: "events", Section: c, Compile: compile, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	batch := backendtest.Messages(0, 3)
	want := map[string]string{batch[0].ID: "one two", batch[1].ID: strings.Repeat("é", 99), batch[2].ID: ""}
	batch[0].Body, batch[1].Body, batch[2].Body = "one\r\n\x01two", strings.Repeat("é", 200), "\n"
	for i, err := range b.Publish(t.Context(), batch) {
		if err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
	for _, m := range e.WaitMessages("events", 3) {
		if subject := want[m.Attributes["event_id"].Value]; m.Subject != subject || m.Attributes["event_sort"].Value != "chat.in" {
			t.Errorf("subject %q, want %q; attributes %v", m.Subject, subject, m.Attributes)
		}
	}
}

func TestTruncatedBody(t *testing.T) {
	for _, format := range []string{config.FormatMongooseIM, config.FormatJSON} {
		f, whole := startCompiled(t, func(c *config.SNS) { c.Choice.Format = format })
		b := shorten.New(whole)
		batch := backendtest.Messages(0, 3)
		batch[1].Body = strings.Repeat(`"é`, 200<<10) // every character takes two bytes
		batch[1].Packet = "<message><body>" + batch[1].Body + "</body></message>"
		batch[2].Metadata = event.Metadata{"note": strings.Repeat("x", 300<<10)}
		errs := b.Publish(t.Context(), batch)
		if errs[0] != nil || errs[1] != nil || backends.Reason(errs[2]) != "too_large" {
			t.Fatalf("%s: %v, %v, %v", format, errs[0], errs[1], errs[2])
		}
		for _, m := range f.messages() {
			long := m.Attributes["event_id"] == "String:"+batch[1].ID
			if (m.Attributes["event_truncated"] == "String:true") != long {
				t.Errorf("%s: attributes %v", format, m.Attributes)
			}
			if body := delivered(t, m.Message, nil).Body; long && format == config.FormatMongooseIM && (len(m.Message) < 200<<10 || !strings.HasPrefix(batch[1].Body, body)) {
				t.Errorf("%d bytes are left of the message", len(m.Message))
			}
		}
		if n := b.Counts()["bodies_cut"]; n != 1 {
			t.Errorf("%d bodies cut", n)
		}
	}
}

func TestExpressionsThatAreWrong(t *testing.T) {
	for name, change := range map[string]func(*config.SNS){
		"user_guid:":                   func(c *config.SNS) { c.UserGUID = "x" },
		"subject:":                     func(c *config.SNS) { c.Subject = "x" },
		"message_attributes.a:":        func(c *config.SNS) { c.MessageAttributes = map[string]string{"a": "x"} },
		"no attribute named \"AWS.a\"": func(c *config.SNS) { c.MessageAttributes = map[string]string{"AWS.a": "local"} },
		"only format mongooseim":       func(c *config.SNS) { c.UserGUID, c.Choice.Format = "local", config.FormatJSON },
	} {
		c := options("localhost")
		change(&c)
		if _, err := sns.New(sns.Options{Name: sns.Name, Section: c, Compile: compile, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s %v", name, err)
		}
	}
	_, b := startCompiled(t, func(c *config.SNS) { c.Subject = "nothing" })
	if err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]; backends.Reason(err) != "permanent" || !strings.Contains(err.Error(), "subject") {
		t.Errorf("a subject without a value: %v", err)
	}
}

// TestLanesShareCalls: single events of many lanes go out in one call for each topic, when it
// is full or its time has come.
func TestLanesShareCalls(t *testing.T) {
	f, b := startBackend(t, func(c *config.SNS) { c.Linger = time.Hour })
	var lanes sync.WaitGroup
	publish := func(e event.Event) {
		lanes.Go(func() {
			if err := b.Publish(t.Context(), []event.Event{e})[0]; err != nil {
				t.Error(err)
			}
		})
	}
	for _, e := range backendtest.Messages(0, 20) {
		publish(e)
	}
	for _, e := range backendtest.Messages(20, 10) {
		publish(event.Event{ID: e.ID, Kind: event.UserStatus, From: e.From, User: e.User})
	}
	lanes.Wait()
	if batches, singles := len(f.requests("PublishBatch")), len(f.requests("Publish")); batches != 3 || singles != 0 || len(f.messages()) != 30 {
		t.Errorf("%d calls of PublishBatch, %d of Publish, %d messages", batches, singles, len(f.messages()))
	}
	f, b = startBackend(t, func(c *config.SNS) { c.Linger = time.Millisecond })
	for i, err := range b.Publish(t.Context(), backendtest.Messages(0, 3)) {
		if err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
	if n := len(f.requests("PublishBatch")); n != 1 {
		t.Errorf("%d calls", n)
	}
}
