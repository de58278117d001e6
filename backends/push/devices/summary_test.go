package devices

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/notify"
)

// TestNotification: what a summary becomes in each content mode.
func TestNotification(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	two, zero := 2, 0
	told := Summary{field("message-count", "3"), field("last-message-sender", "Alice@example.org/desk"), field("last-message-body", "hi"), field("badge", "2"), field("x-app", "y"), field("google.x", "z")}
	full := notify.Notification{
		ID: "e1", Time: at, TTL: time.Hour, Title: "alice@example.org/desk", Body: "hi", Sender: "alice@example.org/desk", Thread: thread("n", "alice@example.org"),
		Badge: &two, MessageCount: 3, Priority: notify.High, Data: map[string]string{"x-app": "y"},
	}
	senderOnly := full
	senderOnly.Body, senderOnly.Data, senderOnly.CollapseID = "", nil, full.Thread
	none := senderOnly
	none.Title, none.Sender = notify.GenericBody, ""
	generic := notify.Notification{ID: "e1", Time: at, TTL: time.Hour, Body: "New Message!", MessageCount: 1, Priority: notify.High, Thread: thread("n", "")}
	genericHidden := generic
	genericHidden.Title, genericHidden.Body, genericHidden.CollapseID = notify.GenericBody, "", generic.Thread
	silent := notify.Notification{ID: "e1", Time: at, TTL: time.Hour, Silent: true, MessageCount: 1}
	cleared := notify.Notification{ID: "e1", Time: at, TTL: time.Hour, Silent: true, Badge: &zero}
	subscription := notify.Notification{ID: "e1", Time: at, TTL: time.Hour, Title: notify.GenericBody, Priority: notify.High, Thread: thread("n", ""), CollapseID: thread("n", ""), Data: map[string]string{"pending-subscription-count": "1"}}
	call := notify.Notification{Call: true,
		ID: "e1", Time: at, TTL: time.Hour, Title: "alice@example.org", Sender: "alice@example.org", Priority: notify.High, Thread: thread("n", "alice@example.org"),
		CollapseID: thread("n", "alice@example.org"), Data: map[string]string{"jingle-message": "propose", "jingle-session-id": "s"},
	}
	secret := notify.Notification{
		ID: "e1", Time: at, TTL: time.Hour, Title: notify.GenericBody, Priority: notify.High, Sealed: true, Data: map[string]string{"encrypted": "AAAA", "iv": "BBBB", "account": "bob@example.org"},
	}
	secretCall := secret
	secretCall.Call = true
	sealedText := Summary{field("encrypted", "AAAA"), field("iv", "BBBB")}
	for name, tc := range map[string]struct {
		summary Summary
		content notify.Content
		want    notify.Notification
	}{
		"encrypted":           {sealedText, notify.ContentBody, secret},
		"encrypted elsewhere": {sealedText, notify.ContentSender, notify.Notification{ID: "e1", Time: at, TTL: time.Hour, Title: notify.GenericBody, Priority: notify.High, Thread: thread("n", ""), CollapseID: thread("n", "")}},
		"an encrypted call":   {append(sealedText[:2:2], field("jingle-message", "propose")), notify.ContentBody, secretCall},
		"body":                {told, notify.ContentBody, full},
		"sender":              {told, notify.ContentSender, senderOnly},
		"none":                {told, notify.ContentNone, none},
		"generic":             {Summary{field("message-count", "1"), field("last-message-body", "New Message!")}, notify.ContentBody, generic},
		"generic, sender":     {Summary{field("message-count", "1"), field("last-message-body", "New Message!")}, notify.ContentSender, genericHidden},
		"silent":              {Summary{field("message-count", "1")}, notify.ContentNone, silent},
		"badge taken away":    {Summary{field("badge", "0")}, notify.ContentBody, cleared},
		"a contact request":   {Summary{field("pending-subscription-count", "1")}, notify.ContentBody, subscription},
		"a call": {
			Summary{field("message-sender", "alice@example.org"), field("jingle-message", "propose"), field("jingle-session-id", "s")}, notify.ContentBody, call,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &Message{EventID: "e1", Time: at, Owner: "bob@example.org", Summary: tc.summary}
			if diff := cmp.Diff(tc.want, m.notification("n", tc.content, time.Hour)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestDecidedHere: what was encrypted here was told no more than the content mode allows.
func TestDecidedHere(t *testing.T) {
	m := &Message{EventID: "e1", Summary: Summary{field("encrypted", "AAAA"), field("iv", "BBBB")}, Decided: true}
	want := notify.Notification{ID: "e1", Title: notify.GenericBody, Priority: notify.High, Sealed: true, Data: map[string]string{"encrypted": "AAAA", "iv": "BBBB"}}
	if diff := cmp.Diff(want, m.notification("n", notify.ContentNone, 0)); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutSession(t *testing.T) {
	rooms := func(domain string) bool { return domain == "conference.example.org" }
	for name, tc := range map[string]struct{ field, sender, want string }{
		"a session":              {"last-message-sender", "Alice@example.org/pc", "alice@example.org"},
		"an account":             {"last-message-sender", "Alice@example.org", "Alice@example.org"},
		"an occupant":            {"last-message-sender", "tea@conference.example.org/Alice", "tea@conference.example.org/Alice"},
		"a session of elsewhere": {"last-message-sender", "bob@example.net/pc", "bob@example.net"},
		"a caller":               {"message-sender", "alice@example.org/pc", "alice@example.org"},
		"another field":          {"x-from", "alice@example.org/pc", "alice@example.org/pc"},
	} {
		before := Summary{field("message-count", "1"), field(tc.field, tc.sender)}
		got := before.WithoutSession(rooms)
		if diff := cmp.Diff(Summary{field("message-count", "1"), field(tc.field, tc.want)}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if before[1].Value != tc.sender {
			t.Errorf("%s: the summary itself was changed", name)
		}
	}
}

func TestReadSummary(t *testing.T) {
	for name, tc := range map[string]struct {
		packet string
		want   Summary
	}{
		"encrypted": {"<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'><field var='a'><value>1</value></field></x><encrypted xmlns='tigase:push:encrypt:0' iv='AAECAwQFBgcICQoL' type='voip'>\n" +
			strings.Repeat("A", 40) + "\n</encrypted></notification>", Summary{field("encrypted", strings.Repeat("A", 40)), field("iv", "AAECAwQFBgcICQoL"), field("jingle-message", "propose")}},
		"encrypted, too long": {"<notification xmlns='urn:xmpp:push:0'><encrypted xmlns='tigase:push:encrypt:0' iv='AAECAwQFBgcICQoL'>" + strings.Repeat("A", 4000) + "</encrypted></notification>",
			Summary{field(notify.KeyBody, notify.GenericBody)}},
		"no form": {"<notification xmlns='urn:xmpp:push:0'/>", nil},
		"empty fields": {"<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='form'><field var='a'/><field var='b'><value> </value></field>" +
			"<field><value>x</value></field><field var='c'><value>1</value><value>2</value></field></x></notification>", Summary{field("c", "1")}},
		"too many": {"<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'>" + strings.Repeat("<field var='a'><value>1</value></field>", maxFields+1) + "</x></notification>",
			Summary(repeat(field("a", "1"), maxFields))},
		"too large": {"<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'><field var='a'><value>1</value></field><field var='b'><value>" +
			strings.Repeat("x", maxSummary) + "</value></field></x></notification>", Summary{field("a", "1")}},
		"a long text": {"<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'><field var='last-message-body'><value>" + strings.Repeat("x", 2*maxSummary) +
			"</value></field><field var='last-message-sender'><value>alice@example.org</value></field></x></notification>",
			Summary{field(notify.KeyBody, strings.Repeat("x", decide.MaxBody-3)+"…"), field(notify.KeySender, "alice@example.org")}},
		"large, and more": {"<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'><field var='b'><value>" + strings.Repeat("x", maxSummary) +
			"</value></field><field var='last-message-body'><value>hi</value></field></x></notification>", Summary{field(notify.KeyBody, "hi")}},
	} {
		got, err := ReadSummary(tc.packet)
		if diff := cmp.Diff(tc.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
		again, err := ReadSummary(got.Packet())
		if diff := cmp.Diff(got, again); diff != "" || err != nil {
			t.Errorf("%s, written and read: %v (-want +got):\n%s", name, err, diff)
		}
	}
	for _, packet := range []string{"", "<notification/>", "<notification xmlns='urn:xmpp:push:0'>", "<x xmlns='urn:xmpp:push:0'/>"} {
		if s, err := ReadSummary(packet); err == nil {
			t.Errorf("%q is read as %v", packet, s)
		}
	}
}

func repeat[T any](v T, n int) []T {
	var list []T
	for range n {
		list = append(list, v)
	}
	return list
}
