package push

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// ownDevices makes the fixture an app server: the component is events.example.org, FCM
// a stand-in, and what is enqueued is kept.
func (f *fixture) ownDevices(t *testing.T) (google *pushtest.FCM, registry *devices.Registry) {
	t.Helper()
	google = pushtest.StartFCM(t, time.Hour)
	apps, err := devices.NewApps([]config.PushApp{{Name: "chat", FCM: &config.PushFCM{Credentials: google.ServiceAccount(t), URL: google.URL, CACertFile: google.CAFile}}})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := store.OpenDevices(filepath.Join(t.TempDir(), store.DevicesFile), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d := devices.NewDelivery(devices.Options{Apps: apps, Content: notify.ContentBody, MaxAge: time.Hour, Burst: 2, Interval: time.Hour, Routes: f.o.Routes})
	d.Attach(kept)
	f.o.Own, f.own, f.o.Devices = "events.example.org", jid.NewDomains("events.example.org"), d
	t.Cleanup(func() {
		if err := errors.Join(f.Backend.Close(), kept.Close()); err != nil {
			t.Error(err)
		}
	})
	return google, devices.NewRegistry(kept, apps)
}

// TestOwnDevice: a registration that names the component is notified without an IQ, by
// an event of its own.
func TestOwnDevice(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.now = time.Now()
	google, registry := f.ownDevices(t)
	c, err := registry.Register(t.Context(), devices.Request{Owner: "bob@example.org", Kind: "fcm", Token: "bobs"})
	if err != nil {
		t.Fatal(err)
	}
	f.enable(t, "events.example.org", c.Node, secretField(c.Secret))
	if err := f.Publish(t.Context(), []event.Event{f.message("m1")})[0]; err != nil || len(f.queued) != 1 {
		t.Fatalf("%v, queued %v", err, f.queued)
	}
	if e := f.queued[0]; e.Kind != event.Notification || e.User != "bob@example.org" || e.To.Resource() != c.Node {
		t.Errorf("queued %+v", e)
	}
	if err := f.deliver(); err != nil {
		t.Error(err)
	}
	if got := google.Requests(); len(got) != 1 || got[0].Token != "bobs" || !strings.Contains(got[0].Message, "alice@example.org") || !strings.Contains(got[0].Message, `"badge":1`) && !strings.Contains(got[0].Message, `"badge":"1"`) {
		t.Errorf("got %+v", got)
	}
	if got := f.network.take(); len(got) != 0 {
		t.Errorf("an IQ to ourselves: %q", got)
	}
	// A wrong secret tells nobody anything; the registration stays, it may be put right.
	f.enable(t, "events.example.org", c.Node, secretField("wrong"))
	if err := f.publish(t, f.message("m2")); err != nil || len(google.Requests()) != 1 {
		t.Errorf("%v, sent %v", err, google.Requests())
	}
	// A device that is gone ends it.
	if err := registry.Remove(t.Context(), c.Node, func(*store.Device) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := f.publish(t, f.message("m3")); err != nil || len(f.nodes(t)) != 0 {
		t.Errorf("%v, registered %v", err, f.nodes(t))
	}
	want := map[string]uint64{"queued": 1, "pushed": 1, "refused": 1, "disabled": 1, "registered": 2}
	if diff := cmp.Diff(want, f.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// TestEncrypted: what a client asks to have encrypted reaches services and devices so, and
// in no other way.
func TestEncrypted(t *testing.T) {
	const key = "AAECAwQFBgcICQoLDA0ODw=="
	f := newFixture(t, asMongooseIM)
	f.now = time.Now()
	google, registry := f.ownDevices(t)
	c, err := registry.Register(t.Context(), devices.Request{Owner: "bob@example.org", Kind: "fcm", Token: "bobs"})
	if err != nil {
		t.Fatal(err)
	}
	encrypt := "<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm'>" + key + "</encrypt><priority xmlns='tigase:push:priority:0'/>"
	f.enable(t, "events.example.org", c.Node, secretField(c.Secret)+encrypt)
	f.enable(t, "push.example.net", "n", encrypt)
	f.enable(t, "push.example.net", "urgent", "<priority xmlns='tigase:push:priority:0'/>")
	payload := "<enable xmlns='urn:xmpp:push:0' jid='pubsub.example.org' node='n'>" + encrypt + "</enable>"
	var refusal *xmpp.Refusal
	if err := f.register(t, "bob@example.org/phone", []byte(payload), f.now); !errors.As(err, &refusal) || refusal.Condition != "feature-not-implemented" {
		t.Errorf("by MongoosePush: %v", err)
	}
	if err := f.publish(t, f.message("m1")); err != nil {
		t.Fatal(err)
	}
	want := `{"unread":1,"sender":"alice@example.org","type":"chat","message":"OH, HAI!"}`
	got := f.network.take()
	element := regexp.MustCompile(`^push.example.net .*<item><notification xmlns='urn:xmpp:push:0'><encrypted xmlns='tigase:push:encrypt:0' iv='([^']+)'>([^<]+)</encrypted><priority xmlns='tigase:push:priority:0'>high</priority></notification></item></publish></pubsub>$`)
	if len(got) != 2 {
		t.Fatalf("got %q", got)
	}
	if parts := element.FindStringSubmatch(got[0]); parts == nil || pushtest.Unseal(t, key, parts[1], parts[2]) != want {
		t.Errorf("the service got %s", got[0])
	}
	if !strings.Contains(got[1], "</x><priority xmlns='tigase:push:priority:0'>high</priority></notification>") || !strings.Contains(got[1], "OH, HAI!") {
		t.Errorf("the other got %s", got[1])
	}
	var sent struct{ Data map[string]string }
	if requests := google.Requests(); len(requests) != 1 {
		t.Fatalf("got %+v", requests)
	} else if err := json.Unmarshal([]byte(requests[0].Message), &sent); err != nil || strings.Contains(requests[0].Message, "alice@") || sent.Data["account"] != "bob@example.org" {
		t.Errorf("the device got %s", requests[0].Message)
	}
	if told := pushtest.Unseal(t, key, sent.Data["iv"], sent.Data["encrypted"]); told != want {
		t.Errorf("the device was told %s", told)
	}
	e, err := f.Explain(t.Context(), "bob@example.org")
	if text, _ := json.Marshal(e); err != nil || strings.Contains(string(text), key[:8]) || !strings.Contains(string(text), `"rules":["encrypted"]`) {
		t.Errorf("%s, %v", text, err)
	}
}

func secretField(secret string) string {
	return "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='secret'><value>" + secret + "</value></field></x>"
}

// TestDeviceOutcomes: what is decided about published notifications, with its reason.
func TestDeviceOutcomes(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.now = time.Now()
	google, registry := f.ownDevices(t)
	c, err := registry.Register(t.Context(), devices.Request{Kind: "fcm", Token: "shared"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	publish := func(node, body string) event.Event {
		n++
		return NewNotification("example.net", "events.example.org", node, "", devices.Summary{{Name: notify.KeyBody, Value: body}}, f.now.Add(time.Duration(n)))
	}
	about := c.Node
	expired := publish(about, "old")
	expired.Time = f.now.Add(-2 * time.Hour)
	broken := publish(about, "broken")
	broken.Packet = "<notification"
	// In one call, in order for the device.
	batch := []event.Event{expired, publish(about, "1"), publish("nobody", "x"), publish(about, "2"), publish(about, "3"), broken}
	errs := f.Publish(t.Context(), batch)
	var got []string
	for _, err := range errs {
		got = append(got, backends.Reason(err))
	}
	if diff := cmp.Diff([]string{"", "", "", "", "waiting", "permanent"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	later := publish(about, "4")
	if err := f.publish(t, later); backends.Reason(err) != "waiting" {
		t.Errorf("got %v", err)
	}
	if err := f.publish(t, batch[4]); err != nil { // 4 stands for it
		t.Error(err)
	}
	var bodies []string
	for _, r := range google.Requests() {
		bodies = append(bodies, r.Message)
	}
	if len(bodies) != 2 || !strings.Contains(bodies[0], `"1"`) || !strings.Contains(bodies[1], `"2"`) {
		t.Errorf("sent %q", bodies)
	}
	want := map[string]uint64{"pushed": 2, "expired": 1, "device_gone": 1, "rate_limited": 2, "coalesced": 1, "failed": 1}
	if diff := cmp.Diff(want, f.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if list := f.Decisions(batch[1].To); len(list) != 7 || list[len(list)-1].Outcome != "coalesced" {
		t.Errorf("explained as %+v", list)
	}
}

// TestDeadDevice: that the provider says that a device is no more is another thing than that
// nobody here knows it.
func TestDeadDevice(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.now = time.Now()
	google, registry := f.ownDevices(t)
	c, err := registry.Register(t.Context(), devices.Request{Owner: "bob@example.org", Kind: "fcm", Token: "uninstalled"})
	if err != nil {
		t.Fatal(err)
	}
	google.Script("uninstalled", pushtest.Answer{Status: http.StatusNotFound, Body: `{"error":{"status":"NOT_FOUND","details":[` +
		`{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}`})
	known := func() []OwnDevice {
		t.Helper()
		e, err := f.Explain(t.Context(), "bob@example.org")
		if err != nil {
			t.Fatal(err)
		}
		return e.Devices
	}
	if got := known(); len(got) != 1 || got[0].Node != c.Node || got[0].App != "chat" || got[0].Kind != "fcm" || got[0].Created.IsZero() || got[0].Registered.IsZero() || !got[0].Used.IsZero() {
		t.Errorf("%+v", got)
	}
	for range 2 {
		if err := f.publish(t, NewNotification("example.net", "events.example.org", c.Node, "bob@example.org", nil, f.now)); err != nil {
			t.Error(err)
		}
	}
	if got := known(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	var got []string
	for _, d := range f.Decisions("bob@example.org") {
		got = append(got, d.Service+" "+d.Node+" "+d.Outcome)
	}
	if diff := cmp.Diff([]string{"events.example.org " + c.Node + " device_dead", "events.example.org " + c.Node + " device_gone"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestPublishRefused: what is wrong with a registration is told to whom it concerns, and
// nothing to strangers' credit.
func TestPublishRefused(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	_, registry := f.ownDevices(t)
	bobs, err := registry.Register(t.Context(), devices.Request{Owner: "bob@example.org", Kind: "fcm", Token: "bobs"})
	if err != nil {
		t.Fatal(err)
	}
	nobodys, err := registry.Register(t.Context(), devices.Request{Kind: "fcm", Token: "nobodys"})
	if err != nil {
		t.Fatal(err)
	}
	f.PublishRefused(t.Context(), "example.net", bobs.Node, store.ErrSecret)
	f.PublishRefused(t.Context(), "example.net", nobodys.Node, store.ErrSecret)
	f.PublishRefused(t.Context(), "example.net", "guessed", store.ErrUnknown)
	f.PublishRefused(t.Context(), "example.net", "gone", store.ErrSecret)
	if diff := cmp.Diff(map[string]uint64{"publish_forbidden": 3, "publish_unknown_node": 1}, f.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	for user, want := range map[jid.JID]int{"bob@example.org": 1, jid.JID("events.example.org/" + nobodys.Node): 1, "events.example.org/guessed": 0, "events.example.org/gone": 0} {
		list := f.Decisions(user)
		if len(list) != want || want > 0 && list[0].Outcome != "publish_forbidden" {
			t.Errorf("%s: %+v, want %d", user, list, want)
		}
	}
}

// TestExpiredOnTheWay: what grows too old just before it is sent is no refusal.
func TestExpiredOnTheWay(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.now = time.Now() // for the sender it is later
	google, registry := f.ownDevices(t)
	c, err := registry.Register(t.Context(), devices.Request{Kind: "fcm", Token: "shared"})
	if err != nil {
		t.Fatal(err)
	}
	e := NewNotification("example.net", "events.example.org", c.Node, "", devices.Summary{{Name: notify.KeyBody, Value: "old"}}, f.now.Add(-time.Hour))
	if err := f.publish(t, e); err != nil || len(google.Requests()) != 0 {
		t.Errorf("%v, sent %v", err, google.Requests())
	}
	if diff := cmp.Diff(map[string]uint64{"expired": 1}, f.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestNotificationsWithoutDevices(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	e := NewNotification("example.net", "events.example.org", "node", "", nil, f.now)
	if f.Wants(&e) {
		t.Error("wants a notification for nobody's device")
	}
}
