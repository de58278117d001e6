package fcm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/send/sendtest"
	"eventpusher/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const device = "bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1"

func start(t testing.TB, life time.Duration, change func(*Options)) (*pushtest.FCM, *Sender) {
	t.Helper()
	service := pushtest.StartFCM(t, life)
	o := Options{ServiceAccount: service.ServiceAccount(t), URL: service.URL, TLS: service.TLS()}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return service, s
}

func target() notify.Target { return notify.Target{Kind: notify.FCM, Address: device} }

func notification() notify.Notification {
	return notify.Notification{
		ID: "e1", Title: "Alice", Body: "1 < 2", Sender: "alice@localhost", Thread: "t1",
		Badge: new(4), MessageCount: 2, Priority: notify.High, Data: map[string]string{"zulu": "z", "alpha": "a"},
	}
}

func TestSend(t *testing.T) {
	at := time.Now()
	deadline := fmt.Sprint(at.Add(40 * 24 * time.Hour).Unix())
	for _, tc := range []struct {
		name    string
		change  func(*notify.Notification)
		options func(*Options)
		want    string
	}{
		{
			name: "shown",
			want: `{"token":"` + device + `","data":{"alpha":"a","badge":"4","event-id":"e1","last-message-sender":"alice@localhost",` +
				`"message-count":"2","thread":"t1","zulu":"z"},"notification":{"title":"Alice","body":"1 < 2"},` +
				`"android":{"priority":"HIGH","ttl":"0s","notification":{"tag":"t1","sound":"default","notification_count":2}},` +
				`"apns":{"headers":{"apns-expiration":"0","apns-priority":"10","apns-push-type":"alert"},"payload":{"aps":{"badge":4,"sound":"default","thread-id":"t1"}}}}`,
		},
		{
			name: "shown by options",
			change: func(n *notify.Notification) {
				*n = notify.Notification{Time: at, TTL: 40 * 24 * time.Hour, Title: "New message", CollapseID: "c1", Data: map[string]string{"title": "own"}}
			},
			options: func(o *Options) { o.ChannelID, o.ClickAction, o.Sound = "messages", "OPEN_CHAT", "ding" },
			want: `{"token":"` + device + `","data":{"title":"own"},"notification":{"title":"New message"},` +
				`"android":{"priority":"NORMAL","ttl":"2419200s","notification":{"channel_id":"messages","click_action":"OPEN_CHAT","sound":"ding"}},` +
				`"apns":{"headers":{"apns-expiration":"` + deadline + `","apns-priority":"5","apns-push-type":"alert"},"payload":{"aps":{"sound":"ding"}}}}`,
		},
		{
			name: "the application's text",
			change: func(n *notify.Notification) {
				*n = notify.Notification{Title: "alice@localhost", Body: notify.GenericBody}
			},
			options: func(o *Options) { o.LocKey = "new_message" },
			want: `{"token":"` + device + `","notification":{"title":"alice@localhost","body":"New message"},` +
				`"android":{"priority":"NORMAL","ttl":"0s","notification":{"sound":"default","body_loc_key":"new_message"}},` +
				`"apns":{"headers":{"apns-expiration":"0","apns-priority":"5","apns-push-type":"alert"},"payload":{"aps":{"alert":{"title":"alice@localhost","loc-key":"new_message"},"sound":"default"}}}}`,
		},
		{
			name:    "data",
			options: func(o *Options) { o.DataOnly = true },
			want: `{"token":"` + device + `","data":{"alpha":"a","badge":"4","event-id":"e1","last-message-body":"1 < 2","last-message-sender":"alice@localhost",` +
				`"message-count":"2","thread":"t1","title":"Alice","zulu":"z"},"android":{"priority":"HIGH","ttl":"0s"},` +
				`"apns":{"headers":{"apns-expiration":"0","apns-priority":"5","apns-push-type":"background"},"payload":{"aps":{"content-available":1}}}}`,
		},
		{
			name: "encrypted",
			change: func(n *notify.Notification) {
				*n = notify.Notification{Title: notify.GenericBody, Priority: notify.High, Sealed: true, Data: map[string]string{"encrypted": "AAAA", "iv": "BBBB", "account": "bob@localhost"}}
			},
			options: func(o *Options) { o.LocKey = "new_message" },
			want: `{"token":"` + device + `","data":{"account":"bob@localhost","encrypted":"AAAA","iv":"BBBB","title":"New message"},"android":{"priority":"HIGH","ttl":"0s"},` +
				`"apns":{"headers":{"apns-expiration":"0","apns-priority":"10","apns-push-type":"alert"},"payload":{"aps":{"alert":{"title-loc-key":"new_message"},"sound":"default","mutable-content":1}}}}`,
		},
		{
			name: "silent",
			change: func(n *notify.Notification) {
				*n = notify.Notification{Silent: true, Priority: notify.High, TTL: 365 * 24 * time.Hour, Time: at}
			},
			want: `{"token":"` + device + `","android":{"priority":"NORMAL","ttl":"2419200s"},` +
				`"apns":{"headers":{"apns-expiration":"` + fmt.Sprint(at.Add(365*24*time.Hour).Unix()) + `","apns-priority":"5","apns-push-type":"background"},"payload":{"aps":{"content-available":1}}}}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			service, s := start(t, time.Hour, tc.options)
			n := notification()
			if tc.change != nil {
				tc.change(&n)
			}
			if err := s.Send(t.Context(), target(), n); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, service.Requests()[0].Message); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTTLInSeconds(t *testing.T) {
	_, s := start(t, time.Hour, nil)
	for left, want := range map[time.Duration]string{0: "0s", 90*time.Second + 999*time.Millisecond: "90s", maxTTL + time.Hour: "2419200s"} {
		m, err := s.message(&notify.Notification{}, left, time.Now())
		if err != nil || m.Android.TTL != want {
			t.Errorf("%v left: %v, %v, want %s", left, m.Android.TTL, err, want)
		}
	}
}

func TestOversize(t *testing.T) {
	service, s := start(t, time.Hour, nil)
	n := notification()
	n.Body = strings.Repeat("日\"", 4000)
	if err := s.Send(t.Context(), target(), n); err != nil {
		t.Fatal(err)
	}
	var sent struct{ Notification struct{ Body string } }
	if err := json.Unmarshal([]byte(service.Requests()[0].Message), &sent); err != nil {
		t.Fatal(err)
	}
	if kept, cut := strings.CutSuffix(sent.Notification.Body, "…"); !cut || len(kept) < 2000 || !strings.HasPrefix(n.Body, kept) {
		t.Errorf("%d bytes of the body", len(kept))
	}
	n.Data = map[string]string{"large": strings.Repeat("x", 4096)}
	if err := s.Send(t.Context(), target(), n); backends.Reason(err) != "too_large" {
		t.Errorf("%v, want too large", err)
	}
}

func TestVerdicts(t *testing.T) {
	service, s := start(t, time.Hour, nil)
	fail := func(status, message, details string) string {
		return `{"error":{"code":1,"message":"` + message + `","status":"` + status + `","details":[` + details + `]}}`
	}
	fcmError := func(code string) string {
		return `{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"` + code + `"}`
	}
	violation := func(field string) string {
		return `{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"` + field + `","description":"x"}]}`
	}
	const badToken = "The registration token is not a valid FCM registration token"
	for _, tc := range []struct {
		name       string
		status     int
		body       string
		retryAfter string
		want       string
		shows      string
	}{
		{"unregistered", 404, fail("NOT_FOUND", "Requested entity was not found.", fcmError("UNREGISTERED")), "", "gone", "UNREGISTERED"},
		{"no such project", 404, fail("NOT_FOUND", "x", ""), "", "permanent", "NOT_FOUND"},
		{"malformed token", 400, fail("INVALID_ARGUMENT", badToken, fcmError("INVALID_ARGUMENT")), "", "gone", ""},
		{"token named as field", 400, fail("INVALID_ARGUMENT", "x", violation("message.token")), "", "gone", ""},
		{"another field", 400, fail("INVALID_ARGUMENT", "x", violation("message.data[0].value")), "", "permanent", ""},
		{"too big", 400, fail("INVALID_ARGUMENT", "Message is too big", fcmError("INVALID_ARGUMENT")), "", "permanent", ""},
		{"text of the token alone", 400, fail("INVALID_ARGUMENT", badToken, ""), "", "permanent", ""},
		{"another project's token", 403, fail("PERMISSION_DENIED", "x", fcmError("SENDER_ID_MISMATCH")), "", "permanent", "another Firebase project"},
		{"no right", 403, fail("PERMISSION_DENIED", "x", ""), "", "paused", "let the service account"},
		{"no key for Apple", 401, fail("UNAUTHENTICATED", "x", fcmError("THIRD_PARTY_AUTH_ERROR")), "", "permanent", "Apple"},
		{"quota", 429, fail("RESOURCE_EXHAUSTED", "x", fcmError("QUOTA_EXCEEDED")), "", "retry_after 1m0s", ""},
		{"quota for a while", 429, fail("RESOURCE_EXHAUSTED", "x", fcmError("QUOTA_EXCEEDED")), "300", "retry_after 5m0s", ""},
		{"quota for a moment", 429, fail("RESOURCE_EXHAUSTED", "x", fcmError("QUOTA_EXCEEDED")), "1", "retry_after 1m0s", ""},
		{"unavailable", 503, fail("UNAVAILABLE", "x", fcmError("UNAVAILABLE")), "", "retry_after 10s", ""},
		{"unavailable for a moment", 503, fail("UNAVAILABLE", "x", fcmError("UNAVAILABLE")), "3", "retry_after 3s", ""},
		{"internal", 500, fail("INTERNAL", "x", fcmError("INTERNAL")), "", "transient", ""},
		{"a proxy", 502, "<html>alice</html>", "", "transient", "Bad Gateway"},
		{"too large", 413, "", "", "too_large", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := pushtest.Answer{Status: tc.status, Body: tc.body}
			if tc.retryAfter != "" {
				a.Header = map[string]string{"Retry-After": tc.retryAfter}
			}
			service.Script(device, a)
			err := s.Send(t.Context(), target(), notification())
			if got := describe(err); got != tc.want {
				t.Errorf("%v (%s), want %s", err, got, tc.want)
			}
			for _, secret := range []string{device, "alice", "ya29"} {
				if strings.Contains(fmt.Sprint(err), secret) {
					t.Errorf("%v shows %s", err, secret)
				}
			}
			if !strings.Contains(fmt.Sprint(err), tc.shows) {
				t.Errorf("%v does not show %s", err, tc.shows)
			}
		})
	}
	if service.Grants() != 1 {
		t.Errorf("%d access tokens", service.Grants())
	}
}

func describe(err error) string {
	text := backends.Reason(err)
	var after *backends.RetryAfterError
	if errors.As(err, &after) {
		text += " " + after.After.String()
	}
	return text
}

func TestAccessTokenIsSharedAndRenewed(t *testing.T) {
	service, s := start(t, time.Hour, nil)
	var senders sync.WaitGroup
	for range 20 {
		senders.Go(func() {
			if err := s.Send(t.Context(), target(), notification()); err != nil {
				t.Error(err)
			}
		})
	}
	senders.Wait()
	if service.Grants() != 1 {
		t.Errorf("%d access tokens for one", service.Grants())
	}
	s.account.expires = time.Now().Add(renewBefore - time.Second)
	if err := s.Send(t.Context(), target(), notification()); err != nil || service.Grants() != 2 {
		t.Errorf("%v, %d access tokens, want another before the end", err, service.Grants())
	}
	// One that still lives does while no other can be had.
	s.account.expires = time.Now().Add(time.Minute)
	service.Script(pushtest.TokenPath, pushtest.Answer{Status: 503})
	for range 3 {
		if err := s.Send(t.Context(), target(), notification()); err != nil {
			t.Error(err)
		}
	}
	if len(service.Requests()) != 24 || service.Grants() != 2 {
		t.Errorf("%d messages by %d access tokens", len(service.Requests()), service.Grants())
	}
}

// TestCallerEndsDuringTheExchange shows that the others do not lose the access token
// that one of them has asked for.
func TestCallerEndsDuringTheExchange(t *testing.T) {
	service, s := start(t, time.Hour, nil)
	ctx, cancel := context.WithCancel(t.Context())
	service.Script(pushtest.TokenPath, pushtest.Answer{Before: cancel})
	if err := s.Send(ctx, target(), notification()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want canceled", err)
	}
	if err := s.Send(t.Context(), target(), notification()); err != nil || service.Grants() != 1 {
		t.Errorf("%v, %d access tokens, want the one to be used", err, service.Grants())
	}
}

func TestRevokedAccessToken(t *testing.T) {
	service, s := start(t, time.Hour, nil)
	if err := s.Send(t.Context(), target(), notification()); err != nil {
		t.Fatal(err)
	}
	service.Revoke()
	if err := s.Send(t.Context(), target(), notification()); err != nil {
		t.Errorf("%v, want another access token to be taken", err)
	}
	refused := pushtest.Answer{Status: 401, Body: `{"error":{"status":"UNAUTHENTICATED"}}`}
	service.Script(device, refused, refused)
	if err := s.Send(t.Context(), target(), notification()); backends.Reason(err) != "paused" {
		t.Errorf("%v, want paused after the second refusal", err)
	}
	if err := s.Send(t.Context(), target(), notification()); err != nil {
		t.Errorf("%v, want exactly two attempts before", err)
	}
}

func TestTokenServiceVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer pushtest.Answer
		want   string
	}{
		{"deleted key", pushtest.Answer{Status: 400, Body: `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`}, "paused"},
		{"deleted account", pushtest.Answer{Status: 401, Body: `{"error":"invalid_client"}`}, "paused"},
		{"busy", pushtest.Answer{Status: 503, Header: map[string]string{"Retry-After": "9"}}, "retry_after 9s"},
		{"broken", pushtest.Answer{Status: 500}, "transient"},
		{"no token", pushtest.Answer{Status: 200, Body: `{}`}, "transient"},
		{"not JSON", pushtest.Answer{Status: 200, Body: `<html>`}, "transient"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			service, s := start(t, time.Hour, nil)
			service.Script(pushtest.TokenPath, tc.answer)
			for range 3 { // the first failure answers for the others
				if err := s.Send(t.Context(), target(), notification()); describe(err) != tc.want {
					t.Errorf("%v (%s), want %s", err, describe(err), tc.want)
				}
			}
			if service.Grants() != 0 {
				t.Errorf("%d further questions at once", service.Grants())
			}
			s.account.failedAt = s.account.failedAt.Add(-failurePause)
			if err := s.Send(t.Context(), target(), notification()); err != nil {
				t.Errorf("%v after the pause", err)
			}
		})
	}
}

func TestRefusedWithoutARequest(t *testing.T) {
	service, s := start(t, time.Hour, nil)
	for name, tc := range map[string]struct {
		target func(*notify.Target)
		change func(*notify.Notification)
		want   string
	}{
		"no token":     {func(t *notify.Target) { t.Address = "" }, nil, "gone"},
		"google's key": {nil, func(n *notify.Notification) { n.Data = map[string]string{"google.c.x": ""} }, "permanent"},
		"from":         {nil, func(n *notify.Notification) { n.Data = map[string]string{"from": ""} }, "permanent"},
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

func TestNewRefuses(t *testing.T) {
	good := string(pushtest.StartFCM(t, time.Hour).ServiceAccount(t))
	var fields map[string]string
	if err := json.Unmarshal([]byte(good), &fields); err != nil {
		t.Fatal(err)
	}
	with := func(key, value string) config.Secret {
		changed := map[string]string{}
		for k, v := range fields {
			changed[k] = v
		}
		changed[key] = value
		text, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		return config.Secret(text)
	}
	for name, o := range map[string]Options{
		"nothing":        {},
		"not JSON":       {ServiceAccount: `{"private_key": s3cret`},
		"a user":         {ServiceAccount: with("type", "authorized_user")},
		"no project":     {ServiceAccount: with("project_id", "")},
		"no key":         {ServiceAccount: with("private_key", "s3cret")},
		"plain http":     {ServiceAccount: with("token_uri", "http://oauth2.googleapis.com/token")},
		"plain http URL": {ServiceAccount: config.Secret(good), URL: "http://fcm.googleapis.com"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(o)
			if err == nil || !strings.HasPrefix(err.Error(), "fcm: ") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v", err)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add(404, []byte(`{"error":{"status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}`))
	f.Add(400, []byte(`{"error":{"details":[{"fieldViolations":[{"field":"message.token"}]}]}}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a := read(&provider.Answer{Status: status, Header: http.Header{}, Body: body, At: time.Now()})
		if err := a.verdict(); (err == nil) != (status >= 200 && status <= 299) {
			t.Errorf("status %d: %v", status, err)
		} else if err != nil && len(err.Error()) > 300 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}

// TestCollapseKeys: FCM drops messages of a device that have more than four keys.
func TestCollapseKeys(t *testing.T) {
	service, s := start(t, time.Hour, func(o *Options) { o.DataOnly = true })
	keys := make(map[string]bool)
	for i := range 40 {
		n := notification()
		n.CollapseID = fmt.Sprint("conversation ", i)
		if err := s.Send(t.Context(), target(), n); err != nil {
			t.Fatal(err)
		}
		_, key, there := strings.Cut(service.Requests()[i].Message, `"collapse_key":"`)
		key, _, _ = strings.Cut(key, `"`)
		if keys[key] = true; !there {
			t.Error("no key")
		}
	}
	if len(keys) != 4 {
		t.Errorf("the keys are %v", keys)
	}
}

// TestAccountInBasicString: TOML turns the \\n of a key in """ into line ends.
func TestAccountInBasicString(t *testing.T) {
	service := pushtest.StartFCM(t, time.Hour)
	broken := strings.ReplaceAll(service.ServiceAccount(t).Reveal(), `\n`, "\n")
	_, err := New(Options{ServiceAccount: config.Secret(broken)})
	if err == nil || !strings.Contains(err.Error(), "'''") || strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("got %v", err)
	}
}

// TestContract is what every sender does.
func TestContract(t *testing.T) {
	sendtest.Run(t, func(t *testing.T) sendtest.Destination {
		service, s := start(t, time.Hour, nil)
		answer := func(status int, code string) func() {
			body := `{"error":{"details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"` + code + `"}]}}`
			return func() { service.Script(device, pushtest.Answer{Status: status, Body: body}) }
		}
		return sendtest.Destination{
			Sender: s, Target: target(), Notification: notification(),
			Taken: func() int { return len(service.Requests()) }, Hold: service.Holder(device), Secrets: []string{device, "alice", "ya29"},
			Answers: map[string]func(){
				"gone": answer(404, "UNREGISTERED"), "permanent": answer(403, "SENDER_ID_MISMATCH"), "transient": answer(500, "INTERNAL"),
				"paused": answer(403, ""), "retry_after": answer(429, "QUOTA_EXCEEDED"), "too_large": answer(413, ""),
			},
		}
	})
}
