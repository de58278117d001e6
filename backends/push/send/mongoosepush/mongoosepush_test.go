package mongoosepush

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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

func start(t testing.TB, version, prefix string) (*pushtest.MongoosePush, *Client) {
	t.Helper()
	service := pushtest.StartMongoosePush(t)
	c, err := New(config.MongoosePush{APIVersion: version}, config.HTTPPool{
		Host: service.URL, PathPrefix: prefix, TLS: service.TLS(), RequestTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return service, c
}

func object(t *testing.T, text string) (fields map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return fields
}

var fcm = map[string]string{"service": "fcm"}

// to is a device with these publish-options.
func to(device string, options map[string]string) notify.Target {
	list := []notify.Field{{Name: "device_id", Value: device}}
	for name, value := range options {
		if name != "device_id" {
			list = append(list, notify.Field{Name: name, Value: value})
		}
	}
	return Target(list)
}

// told is a notification with this summary.
func told(summary map[string]string) notify.Notification {
	var fields []notify.Field
	for name, value := range summary {
		fields = append(fields, notify.Field{Name: name, Value: value})
	}
	return notify.Notification{Element: notify.Element(fields)}
}

// summary is that of MongooseIM's default plugin.
func summary(count, sender, body string) map[string]string {
	return map[string]string{"message-count": count, "last-message-sender": sender, "last-message-body": body}
}

func TestPublish(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options map[string]string
		summary map[string]string
		want    string
	}{
		{
			// What MongooseIM 6.8.0 was seen to send.
			"as MongooseIM",
			map[string]string{"service": "apns", "device_id": "tok-alice-1", "silent": "false", "topic": "app.topic"},
			summary("1", "bob@localhost", "U04 wake up 😀 <&"),
			`{"topic":"app.topic","alert":{"badge":1,"body":"U04 wake up 😀 <&","title":"bob@localhost","tag":"bob@localhost"},"service":"apns"}`,
		},
		{
			"all options",
			map[string]string{
				"service": "apns", "mode": "dev", "priority": "high", "topic": "some_topic", "mutable_content": "true", "time_to_live": "60",
				"click_action": "myactivity", "sound": "default", "tags": "another pool", "device_id": "x", "other": "y",
			},
			summary("3", "alice@localhost", "OH, HAI!"),
			`{"service":"apns","mode":"dev","priority":"high","topic":"some_topic","mutable_content":"true","time_to_live":"60",` +
				`"alert":{"body":"OH, HAI!","title":"alice@localhost","tag":"alice@localhost","badge":3,"click_action":"myactivity","sound":"default"}}`,
		},
		{
			"silent",
			map[string]string{"service": "fcm", "silent": "true", "priority": "high", "click_action": "x"},
			summary("1", "alice@localhost", "OH, HAI!"),
			`{"service":"fcm","priority":"high","data":{"message-count":1,"last-message-sender":"alice@localhost","last-message-body":"OH, HAI!"}}`,
		},
		{
			"the sender is not told",
			map[string]string{"service": "fcm"},
			map[string]string{"message-count": "1", "last-message-body": "New message"},
			`{"service":"fcm","alert":{"badge":1,"body":"New message","tag":"New message","title":"New message"}}`,
		},
		{
			"silent means true and nothing else",
			map[string]string{"service": "fcm", "silent": "TRUE"},
			summary("1", "alice@localhost", ""),
			`{"service":"fcm","alert":{"body":"","title":"alice@localhost","tag":"alice@localhost","badge":1}}`,
		},
		{
			// push_pubsub_SUITE, rest_service_gets_correct_payload_v2.
			"a large count",
			map[string]string{"service": "apns", "mode": "prod", "topic": "some_topic"},
			summary("876", "senderId", "message body"),
			`{"service":"apns","mode":"prod","topic":"some_topic",` +
				`"alert":{"badge":876,"title":"senderId","tag":"senderId","body":"message body"}}`,
		},
		{
			"a call by the hints plugin",
			map[string]string{"service": "apns", "silent": "true"},
			map[string]string{"message-sender": "alice@localhost", "jingle-message": "propose", "jingle-session-id": "ca3c"},
			`{"service":"apns","data":{"message-sender":"alice@localhost","jingle-message":"propose","jingle-session-id":"ca3c"}}`,
		},
	} {
		for _, version := range []string{"v2", "v3"} {
			t.Run(tc.name+" "+version, func(t *testing.T) {
				service, c := start(t, version, "/")
				if err := c.Send(t.Context(), to("tok-1", tc.options), told(tc.summary)); err != nil {
					t.Fatal(err)
				}
				got := service.Requests()[0]
				if want := "/" + version + "/notification/tok-1"; got.Path != want {
					t.Errorf("path %s, want %s", got.Path, want)
				}
				if diff := cmp.Diff(object(t, tc.want), object(t, got.Body)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestEpoch: the epoch is a header only where several instances share the outbox.
func TestEpoch(t *testing.T) {
	service, c := start(t, "", "/")
	for i, ctx := range []context.Context{t.Context(), backends.WithEpoch(t.Context(), 7)} {
		if err := c.Send(ctx, to("tok-1", fcm), told(summary("1", "alice@localhost", "OH, HAI!"))); err != nil {
			t.Fatal(err)
		}
		if got, want := service.Requests()[i].Epoch, [...]string{"", "7"}[i]; got != want {
			t.Errorf("epoch %q, want %q", got, want)
		}
	}
}

func TestPathIsEscaped(t *testing.T) {
	for prefix, start3 := range map[string]string{"": "/v3", "/": "/v3", "push": "/push/v3", "/push/": "/push/v3"} {
		service, c := start(t, "", prefix)
		devices := []string{"a:b_c-d", "a/b", "..x/y..", "a?b=c#d", "100%", "ü x", "%2f"}
		want := []string{"a:b_c-d", "a%2Fb", "..x%2Fy..", "a%3Fb=c%23d", "100%25", "%C3%BC%20x", "%252f"}
		for i, device := range devices {
			if err := c.Send(t.Context(), to(device, fcm), told(summary("1", "a@b", "x"))); err != nil {
				t.Errorf("%q: %v", device, err)
				continue
			}
			got := service.Requests()[i]
			if got.Path != start3+"/notification/"+want[i] || got.DeviceID != device {
				t.Errorf("%s for %q of %q, want %s", got.Path, got.DeviceID, device, want[i])
			}
		}
	}
}

func TestRefusedWithoutARequest(t *testing.T) {
	service, c := start(t, "", "/")
	good := summary("1", "a@b", "x")
	for name, tc := range map[string]struct {
		device           string
		options, summary map[string]string
	}{
		"no device":         {"", fcm, good},
		"a step":            {".", fcm, good},
		"a step up":         {"..", fcm, good},
		"no options":        {"d", nil, good},
		"no service":        {"d", map[string]string{"silent": "true"}, good},
		"a step within":     {"../../v2/admin", fcm, good},
		"a step, escaped":   {"%2e%2e", fcm, good},
		"escaped twice":     {"x%252f%252E%252e%252f", fcm, good},
		"backslashes":       {`x\..\y`, fcm, good},
		"parameters":        {"..;x/y", fcm, good},
		"two lines":         {"a\nb", fcm, good},
		"too long":          {strings.Repeat("x", maxDevice+1), fcm, good},
		"no body":           {"d", fcm, map[string]string{"message-count": "1", "last-message-sender": "x"}},
		"count of no digit": {"d", fcm, summary("many", "a@b", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.Send(t.Context(), to(tc.device, tc.options), told(tc.summary)); backends.Reason(err) != "permanent" {
				t.Errorf("%v, want permanent", err)
			}
		})
	}
	if n := service.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		status     int
		retryAfter string
		want       string
	}{
		{200, "", ""}, {204, "", ""},
		{302, "", "paused"}, {400, "", "permanent"}, {401, "", "paused"}, {403, "", "paused"}, {404, "", "permanent"},
		{408, "", "transient"}, {410, "", "gone"}, {413, "", "too_large"}, {422, "", "permanent"},
		{429, "", "transient"}, {429, "8", "retry_after"},
		{500, "", "transient"}, {503, "", "transient"}, {503, "8", "retry_after"},
	} {
		t.Run(fmt.Sprintf("%d %s", tc.status, tc.retryAfter), func(t *testing.T) {
			service, c := start(t, "", "/")
			service.Script("d3vice", pushtest.Answer{Status: tc.status, Header: map[string]string{"Retry-After": tc.retryAfter}})
			err := c.Send(t.Context(), to("d3vice", fcm), told(summary("1", "alice@localhost", "hi")))
			if got := backends.Reason(err); got != tc.want {
				t.Errorf("%v (%s), want %s", err, got, tc.want)
			}
			if shown := fmt.Sprint(err); strings.Contains(shown, "d3vice") || strings.Contains(shown, "alice") {
				t.Errorf("%v shows a device or a sender", err)
			}
		})
	}
}

// TestDeadDeviceOfVersion2: version 2 answers 500 for a device that is gone, so that this
// says nothing about other devices; what stands before MongoosePush speaks for all.
func TestDeadDeviceOfVersion2(t *testing.T) {
	for _, tc := range []struct {
		version   string
		status    int
		elsewhere bool
	}{{"v2", 500, true}, {"v2", 503, false}, {"v3", 500, false}} {
		service, c := start(t, tc.version, "/")
		service.Script("d", pushtest.Answer{Status: tc.status})
		err := c.Send(t.Context(), to("d", fcm), told(summary("1", "alice@localhost", "hi")))
		if errors.As(err, new(*backends.ElsewhereError)) != tc.elsewhere || backends.Reason(err) != "transient" {
			t.Errorf("%s %d: %v", tc.version, tc.status, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	c, err := New(config.MongoosePush{}, config.HTTPPool{Host: "http://joe:hunter2@127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Send(t.Context(), to("d3vice", fcm), told(summary("1", "a@b", "x")))
	if backends.Reason(err) != "transient" || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "d3vice") {
		t.Errorf("%v (%s), want transient without secrets", err, backends.Reason(err))
	}
}

func TestNewRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		module config.MongoosePush
		pool   config.HTTPPool
	}{
		"no host":      {config.MongoosePush{}, config.HTTPPool{}},
		"no scheme":    {config.MongoosePush{}, config.HTTPPool{Host: "localhost:8443"}},
		"another":      {config.MongoosePush{}, config.HTTPPool{Host: "ftp://joe:hunter2@localhost"}},
		"no URL":       {config.MongoosePush{}, config.HTTPPool{Host: "https://joe:hunter2@local host"}},
		"version":      {config.MongoosePush{APIVersion: "v1"}, config.HTTPPool{Host: "https://localhost"}},
		"certificates": {config.MongoosePush{}, config.HTTPPool{Host: "https://localhost", TLS: &config.TLS{CACertFile: "/nonexistent"}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(tc.module, tc.pool)
			if err == nil || !strings.HasPrefix(err.Error(), "mongoosepush: ") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
		})
	}
}

func FuzzPath(f *testing.F) {
	f.Add("a/../b?c#d%2f")
	f.Add("..")
	_, c := start(f, "", "/prefix")
	f.Fuzz(func(t *testing.T, device string) {
		u, err := c.target(device)
		if err != nil {
			return
		}
		const before = "/prefix/v3/notification/"
		last, below := strings.CutPrefix(u.EscapedPath(), before)
		if !below || last == "" || strings.ContainsAny(last, "/?#") || u.Path != before+device || u.RawQuery != "" {
			t.Errorf("%q becomes %s", device, u)
		}
	})
}

// TestContract is what every sender does.
func TestContract(t *testing.T) {
	sendtest.Run(t, func(t *testing.T) sendtest.Destination {
		service, c := start(t, "", "/")
		answer := func(status int, retryAfter string) func() {
			return func() {
				service.Script("d3vice", pushtest.Answer{Status: status, Header: map[string]string{"Retry-After": retryAfter}})
			}
		}
		return sendtest.Destination{
			Sender: c, Target: to("d3vice", fcm), Notification: told(summary("1", "alice@localhost", "hi")),
			Taken: func() int { return len(service.Requests()) }, Hold: service.Holder("d3vice"), Secrets: []string{"d3vice", "alice"},
			Answers: map[string]func(){
				"gone": answer(410, ""), "permanent": answer(422, ""), "transient": answer(503, ""),
				"paused": answer(403, ""), "retry_after": answer(429, "8"), "too_large": answer(413, ""),
			},
		}
	})
}
