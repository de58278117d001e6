package event_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/event"
)

func TestJSONRoundTrip(t *testing.T) {
	for _, e := range []event.Event{
		{ID: "a1", Kind: event.UserStatus, Type: "online", From: "alice@h/r", User: "alice@h", Online: true, SessionCount: 2, Time: time.Unix(1, 5).UTC(), Host: "h", Dialect: "firewall", Packet: "<presence/>"},
		{ID: "b2", Kind: event.Chat, Type: "groupchat", Direction: event.Out, From: "room@m/n", To: "bob@h/r", User: "bob@h", Room: "room@m", Body: "<&>", HasBody: true, Class: event.Content, Metadata: event.Metadata{"k": "v", "b": true}},
		{ID: "c3", Kind: event.Unack, Class: event.Call},
		{ID: "d4", Kind: event.Stored, RecipientOffline: true},
		{ID: "e5", Packet: "<message"}, // what nobody could read
		{ID: "f6", Kind: event.Notification, To: "push.h/node"},
		{ID: "g7", Kind: event.Removed, From: "alice@h", User: "alice@h"},
		{ID: "a7", Kind: event.Missed, RecipientOffline: true},
		{ID: "b8", Kind: event.Push, Class: event.Reaction},
		{ID: "c9", Kind: event.Chat, Direction: event.In, Class: event.Retraction},
	} {
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var got event.Event
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", data, diff)
		}
	}
}

func TestNamesThatAreNone(t *testing.T) {
	var e event.Event
	for _, data := range []string{`{"kind":"gossip"}`, `{"direction":"up"}`, `{"class":"first"}`} {
		if err := json.Unmarshal([]byte(data), &e); err == nil {
			t.Errorf("%s is read", data)
		}
	}
}
