//go:build linux

package catalog_test

import (
	"fmt"
	"testing"

	"eventpusher/backends/catalog"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/pusher/filter"
)

// TestBrokersOfAFile goes from a configuration to what real services get: two exchanges and a
// topic, each with events, form and expressions of its own.
func TestBrokersOfAFile(t *testing.T) {
	broker, aws := harness.SharedRabbitMQ(t), harness.SNS(t)
	topic := aws.CreateTopic("events")
	text := fmt.Sprintf(`
[component]
name = "events.example.org"
secret = "s"
[general]
hosts = ["example.org"]
[[destination]]
name = "one"
type = "rabbit"
addresses = [%[1]q]
exchange = "catalog_one"
durable = false
events = ["chat", "user_status"]
[[destination]]
name = "two"
type = "rabbit"
addresses = ["127.0.0.1:1", %[1]q]
exchange = "catalog_two"
exchange_type = "direct"
durable = false
events = ["all"]
format = "json"
routing_key = 'event.sort + ":" + (metadata.tenant ?? "none")'
event_headers = false
[[destination]]
name = "aws"
type = "sns"
topic = %[2]q
endpoint = %[3]q
access_key_id = "a"
secret_access_key = "s"
events = ["chat.in"]
format = "template"
template = '{"text": "{{.body}}"}'
subject = '"From " + event.user'
[destination.message_attributes]
length = 'len(event.body)'
`, broker.Addr(), topic, aws.Endpoint())
	cfg, problems := config.Parse([]byte(text), nil, t.TempDir())
	if cfg == nil {
		t.Fatalf("%v", problems)
	}
	one := broker.Consume(harness.Binding{Exchange: "catalog_one", Kind: "topic", Key: "chat.in.#"})
	two := broker.Consume(harness.Binding{Exchange: "catalog_two", Kind: "direct", Key: "user_status.online:none"})
	built, err := catalog.Build(cfg, discard, filter.CompileValue)
	if err != nil {
		t.Fatal(err)
	}
	all, err := event.ParseSelection([]string{"all"})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range built {
		for i, e := range all.Samples() {
			if e.ID = fmt.Sprintf("%032d", i); !b.Wants(&e) {
				continue
			}
			if err := b.Publish(t.Context(), []event.Event{e})[0]; err != nil {
				t.Errorf("%s, %s: %v", b.Name(), e.Sort(), err)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := one.Drain(); len(got) != 1 || got[0].RoutingKey != "chat.in.alice@example.org" || got[0].Headers["event_sort"] != "chat.in" ||
		string(got[0].Body) != `{"to_user_id":"bob@example.org/desk","message":"A sample","from_user_id":"alice@example.org/phone"}` {
		t.Errorf("%+v", got)
	}
	if got := two.Drain(); len(got) != 1 || got[0].Headers != nil || got[0].ContentType != "application/json" {
		t.Errorf("%+v", got)
	}
	got := aws.WaitMessages("events", 1)
	if m := got[0]; len(got) != 1 || m.Subject != "From alice@example.org" || m.Message != `{"text": "A sample"}` ||
		m.Attributes["length"] != (harness.SNSAttribute{Type: "Number", Value: "8"}) || m.Attributes["event_kind"].Value != "chat" {
		t.Errorf("%+v", got)
	}
}
