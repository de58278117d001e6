package apns

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/finding"
)

// wantFinding checks one finding: its level, and what its line contains.
func wantFinding(t *testing.T, f finding.Finding, level finding.Level, parts ...string) {
	t.Helper()
	if f.Level != level || f.Subject != "push" || level != finding.OK && f.Remedy == "" {
		t.Errorf("want %s with what to do: %s", level, f)
	}
	for _, part := range parts {
		if !strings.Contains(f.String(), part) {
			t.Errorf("%q is not in: %s", part, f)
		}
	}
	if strings.Contains(f.String(), "eyJ") {
		t.Errorf("a token is shown: %s", f)
	}
}

// TestProbe asks the stand-in as it is: it knows two of the three topics.
func TestProbe(t *testing.T) {
	service, s, _ := start(t, nil)
	list := s.Probe(t.Context(), "push")
	if len(list) != 3 {
		t.Fatal(list)
	}
	wantFinding(t, list[0], finding.OK, testKeyID, testTeamID, topic)
	wantFinding(t, list[1], finding.OK, voipTopic)
	wantFinding(t, list[2], finding.Fail, "TopicDisallowed", "org.example.other", "topics")
	if n := len(service.Requests()); n != 0 {
		t.Errorf("%d devices were notified", n)
	}
	if n := len(service.ProviderTokens()); n != 1 {
		t.Errorf("%d provider tokens were made", n)
	}
}

// TestProbeWithAnotherKey has a key that Apple does not know.
func TestProbeWithAnotherKey(t *testing.T) {
	_, s, _ := start(t, func(o *Options) {
		_, p8 := newPrivateKey(t)
		o.Key = newTestKey(t, p8, &clock{time.Now()})
	})
	list := s.Probe(t.Context(), "push")
	if len(list) != 1 {
		t.Fatal(list)
	}
	wantFinding(t, list[0], finding.Fail, "InvalidProviderToken", "key_id", testKeyID)
}

// TestProbeAnswers has each answer that Apple may give.
func TestProbeAnswers(t *testing.T) {
	for _, tc := range []struct {
		status int
		reason string
		level  finding.Level
		part   string
	}{
		{400, "BadDeviceToken", finding.OK, "takes key"},
		{400, "DeviceTokenNotForTopic", finding.OK, "takes key"},
		{410, "Unregistered", finding.OK, "takes key"},
		{400, "BadTopic", finding.Fail, "does not own topic"},
		{403, "ExpiredProviderToken", finding.Fail, "clock"},
		{403, "InvalidProviderToken", finding.Fail, "key_id and team_id"},
		{403, "BadEnvironmentKeyIdInToken", finding.Fail, "sandbox"},
		{403, "Forbidden", finding.Fail, "environments"},
		{429, "TooManyProviderTokenUpdates", finding.Warn, "no other program"},
		{429, "TooManyRequests", finding.Warn, "later"},
		{503, "ServiceUnavailable", finding.Warn, "later"},
		{200, "", finding.Warn, "not Apple"},
		{404, "", finding.Fail, "correct url"},
		{502, "", finding.Warn, "502"},
	} {
		t.Run(fmt.Sprint(tc.status, tc.reason), func(t *testing.T) {
			service, s, _ := start(t, func(o *Options) { o.Topics = []string{topic} })
			service.Script(ProbeToken, pushtest.Answer{Status: tc.status, Body: `{"reason":"` + tc.reason + `"}`})
			list := s.Probe(t.Context(), "push")
			if len(list) != 1 {
				t.Fatal(list)
			}
			wantFinding(t, list[0], tc.level, "127.0.0.1", tc.part)
		})
	}
}

// TestProbeUnreachable has nobody, and somebody whose certificate is another's.
func TestProbeUnreachable(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Options)
		part   string
	}{
		"nobody":      {func(o *Options) { o.URL = "https://127.0.0.1:1" }, "cannot be reached"},
		"certificate": {func(o *Options) { o.TLS = nil }, "TLS with"},
	} {
		t.Run(name, func(t *testing.T) {
			_, s, _ := start(t, tc.change)
			list := s.Probe(t.Context(), "push")
			if len(list) != 1 {
				t.Fatal(list)
			}
			wantFinding(t, list[0], finding.Fail, tc.part, "firewall")
		})
	}
	service, s, _ := start(t, nil)
	service.Script(ProbeToken, pushtest.Answer{Before: func() { panic(http.ErrAbortHandler) }})
	list := s.Probe(t.Context(), "push")
	if len(list) != 1 {
		t.Fatal(list)
	}
	wantFinding(t, list[0], finding.Fail, "does not answer")
}
