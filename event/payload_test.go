package event_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/event"
)

func TestAppendPayload(t *testing.T) {
	chat := event.Event{Kind: event.Chat, Direction: event.In, From: "alice@localhost/res1", To: "bob@localhost/desk", Body: "Hi", HasBody: true}
	withMetadata := chat
	withMetadata.Metadata = event.Metadata{"timestamp": int64(1717171717171717), "ratio": 0.5, "vip": true, "team": "a\"b"}
	overridden := chat
	overridden.Metadata = event.Metadata{"message": "[hidden]"}
	for _, tc := range []struct {
		name string
		e    event.Event
		form event.AddressForm
		want string
	}{
		{"online", event.Event{Kind: event.UserStatus, From: "alice@localhost/res1", Online: true}, event.FullJID,
			`{"user_id":"alice@localhost/res1","present":true}`},
		{"offline, bare", event.Event{Kind: event.UserStatus, From: "alice@localhost/res1"}, event.BareJID,
			`{"user_id":"alice@localhost","present":false}`},
		{"chat", chat, event.FullJID,
			`{"to_user_id":"bob@localhost/desk","message":"Hi","from_user_id":"alice@localhost/res1"}`},
		{"chat, bare", chat, event.BareJID,
			`{"to_user_id":"bob@localhost","message":"Hi","from_user_id":"alice@localhost"}`},
		{"metadata at the top level", withMetadata, event.FullJID,
			`{"to_user_id":"bob@localhost/desk","message":"Hi","from_user_id":"alice@localhost/res1","ratio":0.5,"team":"a\"b","timestamp":1717171717171717,"vip":true}`},
		{"metadata wins", overridden, event.FullJID,
			`{"to_user_id":"bob@localhost/desk","from_user_id":"alice@localhost/res1","message":"[hidden]"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, string(event.AppendPayload(nil, &tc.e, tc.form))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPayloadNeverHoldsNonFiniteNumbers(t *testing.T) {
	e := event.Event{Kind: event.UserStatus, From: "a@b/c", Metadata: event.Metadata{"n": math.NaN(), "i": math.Inf(1)}}
	if got, want := string(event.AppendPayload(nil, &e, event.FullJID)), `{"user_id":"a@b/c","present":false,"i":null,"n":null}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzPayload(f *testing.F) {
	f.Add("plain", "key")
	f.Add("\x00\x1f\"\\\u2028\xff é", "k\n")
	f.Fuzz(func(t *testing.T, body, key string) {
		e := event.Event{Kind: event.Chat, From: "a@b/c", To: "d@e", Body: body, HasBody: true, Metadata: event.Metadata{key: body}}
		var got map[string]any
		if err := json.Unmarshal(event.AppendPayload(nil, &e, event.FullJID), &got); err != nil {
			t.Fatalf("not JSON: %v", err)
		}
		// encoding/json replaces invalid UTF-8 in the same way, which makes it the reference.
		var want string
		quoted, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(quoted, &want); err != nil {
			t.Fatal(err)
		}
		if got["message"] != want {
			t.Errorf("message %q, want %q", got["message"], want)
		}
	})
}

func TestKey(t *testing.T) {
	in := event.Event{Kind: event.Chat, Direction: event.In, From: "a@h/1", To: "b@h/2"}
	out := event.Event{Kind: event.Chat, Direction: event.Out, From: "a@h/1", To: "b@h/2"}
	status := event.Event{Kind: event.UserStatus, User: "a@h", From: "a@h/1"}
	unack := event.Event{Kind: event.Unack, From: "a@h/1", To: "b@h/2", User: "b@h"}
	stored := event.Event{Kind: event.Stored, From: "a@h/1", To: "b@h", User: "b@h"}
	missed := event.Event{Kind: event.Missed, From: "room@m/nick", To: "b@h", User: "b@h", Room: "room@m"}
	notification := event.Event{ID: "01", Kind: event.Notification, From: "a@h/1", To: "push.h/node", User: "b@h"}
	removed := event.Event{ID: "02", Kind: event.Removed, From: "a@h", User: "a@h"}
	for _, tc := range []struct {
		e    event.Event
		want string
	}{{removed, "a@h"}, {in, "a@h b@h"}, {out, "b@h a@h"}, {unack, "b@h a@h"}, {stored, "b@h a@h"}, {missed, "b@h room@m"}, {notification, "push.h/node 01"}, {status, "a@h"}} {
		if got := tc.e.Key(); got != tc.want {
			t.Errorf("key %q, want %q", got, tc.want)
		}
	}
}
