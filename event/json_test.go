package event_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/event"
)

// everything is an event with all that an event can have.
func everything(t testing.TB) event.Event {
	e := event.Event{
		ID: "i", Kind: event.Chat, Type: "chat", Direction: event.Out, From: "a@b/c", To: "d@e/f", User: "d@e", Room: "r@m", Body: "<&>", HasBody: true,
		Class: event.Retraction, Encrypted: true, Fallback: true, Replaces: "x", Online: true, RecipientOffline: true, Stranger: true, SessionCount: -3, StanzaID: "s",
		Time: time.Unix(1, 5).UTC(), Host: "h", Dialect: "f", Packet: "<p/>", Reconciled: true, Unverified: true, Replayed: true,
		Metadata: event.Metadata{"k": "v\n", "b": false, "n": int64(7), "f": 0.25},
	}
	v := reflect.ValueOf(e)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("%s is not set", v.Type().Field(i).Name)
		}
	}
	return e
}

// reference is what encoding/json makes of an event.
func reference(t testing.TB, e *event.Event) string {
	var b bytes.Buffer
	w := json.NewEncoder(&b)
	w.SetEscapeHTML(false)
	if err := w.Encode(struct {
		Version int `json:"version"`
		*event.Event
	}{1, e}); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(b.Bytes()))
}

func TestAppendJSON(t *testing.T) {
	all, err := event.ParseSelection([]string{"all"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range append(all.Samples(), event.Event{}, everything(t)) {
		got := event.AppendJSON([]byte("before"), &e, 1)
		if diff := cmp.Diff("before"+reference(t, &e), string(got)); diff != "" {
			t.Error(diff)
		}
	}
}

// FuzzAppendJSON: whatever users write is read as what they wrote.
func FuzzAppendJSON(f *testing.F) {
	f.Add("a\"\\\n\x01\u2028<&>", "\xff")
	f.Fuzz(func(t *testing.T, body, id string) {
		e := everything(t)
		e.Body, e.StanzaID, e.Metadata = body, id, event.Metadata{"k": body}
		var got, want event.Event
		if err := json.Unmarshal(event.AppendJSON(nil, &e, 1), &got); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if err := json.Unmarshal([]byte(reference(t, &e)), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", body, diff)
		}
	})
}
