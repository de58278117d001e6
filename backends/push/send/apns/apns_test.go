package apns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/send/sendtest"
	"eventpusher/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	topic     = "org.example.chat"
	voipTopic = topic + ".voip"
	device    = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"
	eventID   = "0123456789abcdef0123456789abcdef"
)

// start runs a stand-in and a sender for it; c moves the key's clock.
func start(t testing.TB, change func(*Options)) (*pushtest.APNs, *Sender, *clock) {
	t.Helper()
	private, p8 := newPrivateKey(t)
	service := pushtest.StartAPNs(t, pushtest.APNsAccount{
		KeyID: testKeyID, TeamID: testTeamID, Key: &private.PublicKey, Topics: []string{topic, voipTopic},
	})
	c := &clock{time.Now()}
	o := Options{Key: newTestKey(t, p8, c), Topics: []string{topic, voipTopic, "org.example.other"}, URL: service.URL, TLS: service.TLS()}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return service, s, c
}

func target() notify.Target { return notify.Target{Kind: notify.APNs, Address: device} }

func notification() notify.Notification {
	return notify.Notification{
		ID: eventID, Title: "Alice", Body: "1 < 2 & 😀", Sender: "alice@localhost", Thread: "t1",
		Badge: new(4), MessageCount: 2, Priority: notify.High, Data: map[string]string{"zulu": "z", "alpha": "a"},
	}
}

func TestSend(t *testing.T) {
	at := time.Now()
	deadline := fmt.Sprint(at.Add(time.Hour).Unix())
	for _, tc := range []struct {
		name    string
		target  func(*notify.Target)
		change  func(*notify.Notification)
		options func(*Options)
		header  map[string]string
		payload string
	}{
		{
			name: "alert",
			header: map[string]string{
				"Apns-Topic": topic, "Apns-Push-Type": "alert", "Apns-Priority": "10", "Apns-Expiration": "0",
				"Apns-Id": "01234567-89ab-cdef-0123-456789abcdef", "Apns-Collapse-Id": "",
			},
			payload: `{"alpha":"a","aps":{"alert":{"title":"Alice","body":"1 < 2 & 😀"},"badge":4,"sound":"default","thread-id":"t1"},` +
				`"event-id":"` + eventID + `","last-message-sender":"alice@localhost","message-count":"2","zulu":"z"}`,
		},
		{
			name: "later, collapsed, with options",
			change: func(n *notify.Notification) {
				*n = notify.Notification{
					ID: "an id of another form", Time: at, TTL: time.Hour, Title: "New message", CollapseID: "conversation with bob",
					Data: map[string]string{"title": "own"},
				}
			},
			options: func(o *Options) { o.Sound, o.Category, o.MutableContent = "ding.caf", "reply", true },
			header: map[string]string{
				"Apns-Push-Type": "alert", "Apns-Priority": "5", "Apns-Expiration": deadline,
				"Apns-Id": "3ce709e6-fd3c-86f5-bb67-b3ee34bd5ff5", "Apns-Collapse-Id": "BxwIagEazIqxXbCRgTS6E0Loc3cmC7LIL6WFwL8bDXM",
			},
			payload: `{"aps":{"alert":{"title":"New message"},"sound":"ding.caf","category":"reply","mutable-content":1},"event-id":"an id of another form","title":"own"}`,
		},
		{
			name: "the application's text",
			change: func(n *notify.Notification) {
				*n = notify.Notification{ID: eventID, Title: "alice@localhost", Body: notify.GenericBody}
			},
			options: func(o *Options) { o.LocKey, o.Interruption = "NEW_MESSAGE", "time-sensitive" },
			header:  map[string]string{"Apns-Push-Type": "alert"},
			payload: `{"aps":{"alert":{"title":"alice@localhost","loc-key":"NEW_MESSAGE"},"sound":"default","interruption-level":"time-sensitive"},"event-id":"` + eventID + `"}`,
		},
		{
			name: "encrypted",
			change: func(n *notify.Notification) {
				*n = notify.Notification{ID: eventID, Title: notify.GenericBody, Sealed: true, Data: map[string]string{"encrypted": "AAAA", "iv": "BBBB", "account": "bob@localhost"}}
			},
			header:  map[string]string{"Apns-Push-Type": "alert"},
			payload: `{"account":"bob@localhost","aps":{"alert":{"title":"New message"},"sound":"default","mutable-content":1},"encrypted":"AAAA","event-id":"` + eventID + `","iv":"BBBB"}`,
		},
		{
			name:   "silent",
			change: func(n *notify.Notification) { n.Silent = true },
			header: map[string]string{"Apns-Push-Type": "background", "Apns-Priority": "5"},
			payload: `{"alpha":"a","aps":{"content-available":1},"badge":"4","event-id":"` + eventID + `","last-message-body":"1 < 2 & 😀",` +
				`"last-message-sender":"alice@localhost","message-count":"2","thread":"t1","title":"Alice","zulu":"z"}`,
		},
		{
			name:    "badge only",
			change:  func(n *notify.Notification) { *n = notify.Notification{ID: eventID, Badge: new(0)} },
			header:  map[string]string{"Apns-Push-Type": "alert"},
			payload: `{"aps":{"badge":0},"event-id":"` + eventID + `"}`,
		},
		{
			name:   "call",
			target: func(t *notify.Target) { t.Topic = voipTopic },
			change: func(n *notify.Notification) {
				*n = notify.Notification{ID: eventID, Call: true, Sender: "alice@localhost", CollapseID: "c", Data: map[string]string{"jingle-message": "propose"}}
			},
			header:  map[string]string{"Apns-Topic": voipTopic, "Apns-Push-Type": "voip", "Apns-Priority": "10", "Apns-Collapse-Id": ""},
			payload: `{"aps":{},"event-id":"` + eventID + `","jingle-message":"propose","last-message-sender":"alice@localhost"}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			service, s, _ := start(t, tc.options)
			to, n := target(), notification()
			if tc.target != nil {
				tc.target(&to)
			}
			if tc.change != nil {
				tc.change(&n)
			}
			if err := s.Send(t.Context(), to, n); err != nil {
				t.Fatal(err)
			}
			got := service.Requests()[0]
			if got.Token != device {
				t.Errorf("token %s", got.Token)
			}
			if diff := cmp.Diff(tc.payload, got.Payload); diff != "" {
				t.Errorf("payload (-want +got):\n%s", diff)
			}
			for name, want := range tc.header {
				if value := got.Header.Get(name); value != want {
					t.Errorf("%s: %q, want %q", name, value, want)
				}
			}
		})
	}
}

func TestOversize(t *testing.T) {
	service, s, _ := start(t, nil)
	n := notification()
	n.Body = strings.Repeat("日本\n", 2000)
	if err := s.Send(t.Context(), target(), n); err != nil {
		t.Fatal(err)
	}
	call := target()
	call.Topic = voipTopic
	if err := s.Send(t.Context(), call, n); backends.Reason(err) != "permanent" {
		t.Errorf("no call, to a topic of calls: %v", err)
	}
	n.Call = true
	if err := s.Send(t.Context(), call, n); err != nil {
		t.Fatal(err)
	}
	for i, limit := range []int{4096, 5120} {
		if size := len(service.Requests()[i].Payload); size > limit || size < limit-8 {
			t.Errorf("%d bytes, want as many of %d as a character allows", size, limit)
		}
	}
	n.Data = map[string]string{"large": strings.Repeat("x", 4096)}
	if err := s.Send(t.Context(), target(), n); backends.Reason(err) != "too_large" {
		t.Errorf("%v, want too large", err)
	}
}

func TestVerdicts(t *testing.T) {
	service, s, _ := start(t, nil)
	for _, tc := range []struct {
		status int
		body   string
		header map[string]string
		want   string
		shows  string
	}{
		{200, "", nil, "", ""},
		{400, `{"reason":"BadDeviceToken"}`, nil, "gone doubtful", "BadDeviceToken"},
		{400, `{"reason":"DeviceTokenNotForTopic"}`, nil, "gone doubtful", ""},
		{400, `{"reason":"TopicDisallowed"}`, nil, "permanent", "topics"},
		{400, `{"reason":"MissingTopic"}`, nil, "permanent", ""},
		{400, `{"reason":"IdleTimeout"}`, nil, "transient", ""},
		{400, `{"reason":"PayloadEmpty"}`, nil, "permanent", ""},
		{400, `{"reason":"Unregistered"}`, nil, "permanent", ""},
		{400, `{"reason":"echo of alice@localhost"}`, nil, "permanent", "Bad Request"},
		{400, `<html>`, nil, "permanent", "400 Bad Request"},
		{403, `{"reason":"InvalidProviderToken"}`, nil, "paused", "team's id"},
		{403, `{"reason":"Forbidden"}`, nil, "paused", ""},
		{403, ``, nil, "paused", ""},
		{404, `{"reason":"BadPath"}`, nil, "permanent", ""},
		{405, `{"reason":"MethodNotAllowed"}`, nil, "permanent", ""},
		{410, `{"reason":"Unregistered","timestamp":1763769600000}`, nil, "gone since 1763769600", ""},
		{410, `{"reason":"ExpiredToken"}`, nil, "gone", ""},
		{410, `gone`, nil, "permanent", ""},
		{413, `{"reason":"PayloadTooLarge"}`, nil, "too_large", ""},
		{429, `{"reason":"TooManyRequests"}`, nil, "transient", ""},
		{429, `{"reason":"TooManyRequests"}`, map[string]string{"Retry-After": "7"}, "retry_after 7s", ""},
		{429, `{"reason":"TooManyProviderTokenUpdates"}`, nil, "retry_after 5m0s", ""},
		{429, `{"reason":"TooManyProviderTokenUpdates"}`, map[string]string{"Retry-After": "1200"}, "retry_after 20m0s", ""},
		{500, `{"reason":"InternalServerError"}`, nil, "transient", ""},
		{503, `{"reason":"Shutdown"}`, nil, "transient", ""},
		{503, `{"reason":"ServiceUnavailable"}`, map[string]string{"Retry-After": "30"}, "retry_after 30s", ""},
		{307, ``, map[string]string{"Location": "https://elsewhere.example/"}, "paused", ""},
	} {
		t.Run(fmt.Sprintf("%d %s", tc.status, tc.body), func(t *testing.T) {
			service.Script(device, pushtest.Answer{Status: tc.status, Body: tc.body, Header: tc.header})
			err := s.Send(t.Context(), target(), notification())
			if got := describe(err); got != tc.want {
				t.Errorf("%v (%s), want %s", err, got, tc.want)
			}
			if err == nil {
				return
			}
			for _, secret := range []string{device, "alice"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%v shows %s", err, secret)
				}
			}
			if !strings.Contains(err.Error(), tc.shows) {
				t.Errorf("%v does not show %s", err, tc.shows)
			}
		})
	}
	if n := service.Connections(); n != 1 {
		t.Errorf("%d connections for requests that follow each other", n)
	}
}

// describe is the reason of an error with what its type says besides.
func describe(err error) string {
	text := backends.Reason(err)
	var dead *notify.DeadError
	var after *backends.RetryAfterError
	switch {
	case errors.As(err, &dead) && dead.Doubtful:
		text += " doubtful"
	case errors.As(err, &dead) && !dead.Since.IsZero():
		text += fmt.Sprintf(" since %d", dead.Since.Unix())
	case errors.As(err, &after):
		text += " " + after.After.String()
	}
	return text
}

func TestRefusedWithoutARequest(t *testing.T) {
	service, s, _ := start(t, nil)
	for name, tc := range map[string]struct {
		target func(*notify.Target)
		change func(*notify.Notification)
		want   string
	}{
		"of the sandbox":      {func(t *notify.Target) { t.Sandbox = true }, nil, "permanent"},
		"no token":            {func(t *notify.Target) { t.Address = "" }, nil, "gone"},
		"token with a path":   {func(t *notify.Target) { t.Address = "ab/../cd" }, nil, "gone"},
		"endless token":       {func(t *notify.Target) { t.Address = config.Secret(strings.Repeat("a", 201)) }, nil, "gone"},
		"topic of a user":     {func(t *notify.Target) { t.Topic = "com.example.theirs" }, nil, "permanent"},
		"nothing to show":     {nil, func(n *notify.Notification) { *n = notify.Notification{ID: "x"} }, "permanent"},
		"data in Apple's key": {nil, func(n *notify.Notification) { n.Data = map[string]string{"aps": "{}"} }, "permanent"},
	} {
		t.Run(name, func(t *testing.T) {
			to, n := target(), notification()
			if tc.target != nil {
				tc.target(&to)
			}
			if tc.change != nil {
				tc.change(&n)
			}
			if err := s.Send(t.Context(), to, n); describe(err) != tc.want {
				t.Errorf("%v (%s), want %s", err, describe(err), tc.want)
			}
		})
	}
	if n := service.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestServices(t *testing.T) {
	_, p8 := newPrivateKey(t)
	key := newTestKey(t, p8, &clock{time.Now()})
	for sandboxed, want := range map[bool]string{false: "https://api.push.apple.com/", true: "https://api.sandbox.push.apple.com/"} {
		s, err := New(Options{Key: key, Topics: []string{topic}, Sandbox: sandboxed})
		if err != nil || s.base.String() != want {
			t.Errorf("%v, %v, want %s", s.base, err, want)
		}
	}
	_, s, _ := start(t, func(o *Options) { o.Sandbox = true })
	to := target()
	if err := s.Send(t.Context(), to, notification()); backends.Reason(err) != "permanent" {
		t.Errorf("%v, want permanent for a device of production", err)
	}
	to.Sandbox = true
	if err := s.Send(t.Context(), to, notification()); err != nil {
		t.Error(err)
	}
}

func TestTopicThatTheAccountDoesNotOwn(t *testing.T) {
	_, s, _ := start(t, nil)
	to := target()
	to.Topic = "org.example.other"
	if err := s.Send(t.Context(), to, notification()); backends.Reason(err) != "permanent" {
		t.Errorf("%v, want permanent", err)
	}
}

func TestExpiredProviderToken(t *testing.T) {
	expired := pushtest.Answer{Status: 403, Body: `{"reason":"ExpiredProviderToken"}`}
	for name, tc := range map[string]struct {
		held    time.Duration
		answers int
		want    string
		tokens  int
	}{
		"renewed once":               {21 * time.Minute, 1, "", 2},
		"and not twice":              {21 * time.Minute, 2, "paused", 2},
		"too young to be expired":    {19 * time.Minute, 1, "paused", 1},
		"known good, never provoked": {time.Minute, 5, "paused", 1},
	} {
		t.Run(name, func(t *testing.T) {
			service, s, c := start(t, nil)
			// The first half hour of a window, so that nothing but the answer renews.
			c.Time = time.Now().Add(-tc.held).Truncate(window).Add(time.Second)
			if _, err := s.key.current(); err != nil {
				t.Fatal(err)
			}
			c.Time = c.Add(tc.held)
			for range tc.answers {
				service.Script(device, expired)
			}
			if err := s.Send(t.Context(), target(), notification()); describe(err) != tc.want {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if n := len(service.ProviderTokens()); n != tc.tokens {
				t.Errorf("%d provider tokens, want %d", n, tc.tokens)
			}
		})
	}
}

func TestManyShareTokenAndConnection(t *testing.T) {
	service, s, _ := start(t, func(o *Options) { o.Concurrency = 32 })
	if err := s.Send(t.Context(), target(), notification()); err != nil {
		t.Fatal(err)
	}
	var senders sync.WaitGroup
	for range 64 {
		senders.Go(func() {
			for range 5 {
				if err := s.Send(t.Context(), target(), notification()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	senders.Wait()
	if n := len(service.Requests()); n != 321 {
		t.Errorf("%d requests", n)
	}
	if tokens, conns := len(service.ProviderTokens()), service.Connections(); tokens != 1 || conns != 1 {
		t.Errorf("%d provider tokens over %d connections, want one of each", tokens, conns)
	}
}

func TestBurstOpensFewConnections(t *testing.T) {
	service, s, _ := start(t, nil)
	var senders sync.WaitGroup
	for range 100 {
		senders.Go(func() {
			if err := s.Send(t.Context(), target(), notification()); err != nil {
				t.Error(err)
			}
		})
	}
	senders.Wait()
	if n := service.Connections(); n > 20 {
		t.Errorf("%d connections for 100 requests at once", n)
	}
}

// TestConnectionsThatGoAway has the service end a connection with many an answer, as
// Apple's do (GOAWAY).
func TestConnectionsThatGoAway(t *testing.T) {
	service, s, _ := start(t, func(o *Options) { o.Concurrency = 8 })
	for range 15 {
		service.Script(device, pushtest.Answer{Status: 200, Header: map[string]string{"Connection": "close"}})
	}
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range 5 {
				if err := s.Send(t.Context(), target(), notification()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	senders.Wait()
	if taken, conns := len(service.Requests()), service.Connections(); taken != 25 || conns < 2 {
		t.Errorf("%d requests were taken after those with scripts, over %d connections", taken, conns)
	}
}

func TestBrokenConnection(t *testing.T) {
	service, s, _ := start(t, nil)
	if err := s.Send(t.Context(), target(), notification()); err != nil {
		t.Fatal(err)
	}
	service.Disconnect()
	// The first may still take the broken connection.
	var err error
	for range 3 {
		if err = s.Send(t.Context(), target(), notification()); err == nil {
			break
		}
		if backends.Reason(err) != "transient" {
			t.Errorf("%v, want transient", err)
		}
	}
	if err != nil || service.Connections() != 2 {
		t.Errorf("%v, %d connections, want a second", err, service.Connections())
	}
}

func TestContextEnds(t *testing.T) {
	_, s, _ := start(t, func(o *Options) { o.Concurrency = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Send(ctx, target(), notification()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want canceled", err)
	}
}

func TestNewRefuses(t *testing.T) {
	_, p8 := newPrivateKey(t)
	key := newTestKey(t, p8, &clock{time.Now()})
	for name, o := range map[string]Options{
		"no key":      {Topics: []string{topic}},
		"no topics":   {Key: key},
		"empty topic": {Key: key, Topics: []string{topic, ""}},
		"plain http":  {Key: key, Topics: []string{topic}, URL: "http://api.push.apple.com"},
		"no URL":      {Key: key, Topics: []string{topic}, URL: "api.push.apple.com"},
		"TLS":         {Key: key, Topics: []string{topic}, TLS: &config.TLS{CACertFile: "/nonexistent"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "apns: ") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestUUID(t *testing.T) {
	for id, want := range map[string]string{
		eventID:                                "01234567-89ab-cdef-0123-456789abcdef",
		"01234567-89AB-cdef-0123-456789abcdef": "01234567-89ab-cdef-0123-456789abcdef",
	} {
		if got := uuid(id); got != want {
			t.Errorf("uuid(%q) = %s, want %s", id, got, want)
		}
	}
	if a, b := uuid("a"), uuid("b"); a == b || a[14] != '8' || !strings.ContainsRune("89ab", rune(a[19])) {
		t.Errorf("%s and %s, want two of version 8", a, b)
	}
}

func FuzzPayload(f *testing.F) {
	f.Add("Alice", "hi", "key", "value", true)
	f.Add("", "", "aps", "x", false)
	_, p8 := newPrivateKey(f)
	s, err := New(Options{Key: newTestKey(f, p8, &clock{time.Now()}), Topics: []string{topic}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, title, body, key, value string, silent bool) {
		n := notify.Notification{ID: "x", Title: title, Body: body, Silent: silent, Data: map[string]string{key: value}}
		header, payload, err := s.request(&n, topic)
		if err != nil {
			return
		}
		if len(payload) > maxPayload || !json.Valid(payload) || header.Get("Apns-Topic") != topic {
			t.Errorf("%d bytes: %q %v", len(payload), payload, header)
		}
	})
}

// TestBusyDevice: that one device gets too much says nothing of others.
func TestBusyDevice(t *testing.T) {
	for reason, elsewhere := range map[string]bool{"TooManyRequests": true, "TooManyProviderTokenUpdates": false} {
		service, s, _ := start(t, nil)
		service.Script(device, pushtest.Answer{Status: 429, Body: `{"reason":"` + reason + `"}`})
		if err := s.Send(t.Context(), target(), notification()); err == nil || errors.As(err, new(*backends.ElsewhereError)) != elsewhere {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

// TestContract is what every sender does.
func TestContract(t *testing.T) {
	sendtest.Run(t, func(t *testing.T) sendtest.Destination {
		service, s, _ := start(t, nil)
		answer := func(status int, reason string) func() {
			return func() { service.Script(device, pushtest.Answer{Status: status, Body: `{"reason":"` + reason + `"}`}) }
		}
		return sendtest.Destination{
			Sender: s, Target: target(), Notification: notification(),
			Taken: func() int { return len(service.Requests()) }, Hold: service.Holder(device), Secrets: []string{device, "alice"},
			Answers: map[string]func(){
				"gone": answer(410, "Unregistered"), "permanent": answer(400, "PayloadEmpty"), "transient": answer(500, "InternalServerError"),
				"paused": answer(403, "Forbidden"), "retry_after": answer(429, "TooManyProviderTokenUpdates"), "too_large": answer(413, "PayloadTooLarge"),
			},
		}
	})
}
