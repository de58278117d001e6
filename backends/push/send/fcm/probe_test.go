package fcm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/finding"
)

// probe returns the one finding, and checks that it shows no secret.
func probe(t *testing.T, s *Sender) finding.Finding {
	t.Helper()
	list := s.Probe(t.Context(), "push")
	if len(list) != 1 {
		t.Fatal(list)
	}
	f := list[0]
	if f.Subject != "push" || f.Level != finding.OK && f.Remedy == "" || strings.Contains(f.String(), "ya29") || strings.Contains(f.String(), "eyJ") {
		t.Errorf("%s", f)
	}
	return f
}

func wantFinding(t *testing.T, f finding.Finding, level finding.Level, part string) {
	t.Helper()
	if f.Level != level || !strings.Contains(f.String(), part) {
		t.Errorf("%s, want %s with %q", f, level, part)
	}
}

// TestProbe asks the stand-in as it is, also with an access token that it has revoked.
func TestProbe(t *testing.T) {
	service, s := start(t, time.Hour, nil)
	for range 2 {
		wantFinding(t, probe(t, s), finding.OK, "chat-1234")
		service.Revoke()
	}
	if n := len(service.Requests()); n != 0 {
		t.Errorf("%d devices were notified", n)
	}
}

// TestProbeAnswers has each answer to the message that Google may give.
func TestProbeAnswers(t *testing.T) {
	for _, tc := range []struct {
		status int
		code   string
		level  finding.Level
		part   string
	}{
		{200, "", finding.OK, "takes messages"},
		{400, "INVALID_ARGUMENT", finding.OK, "takes messages"},
		{404, "UNREGISTERED", finding.OK, "takes messages"},
		{403, "SENDER_ID_MISMATCH", finding.OK, "takes messages"},
		{403, "PERMISSION_DENIED", finding.Fail, "the role"},
		{404, "NOT_FOUND", finding.Fail, "no project"},
		{429, "RESOURCE_EXHAUSTED", finding.Warn, "later"},
		{503, "UNAVAILABLE", finding.Warn, "later"},
		{405, "", finding.Fail, "correct url"},
	} {
		t.Run(fmt.Sprint(tc.status, tc.code), func(t *testing.T) {
			service, s := start(t, time.Hour, nil)
			detail := ""
			if tc.code == "UNREGISTERED" || tc.code == "SENDER_ID_MISMATCH" {
				detail = `,"details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"` + tc.code + `"}]`
			}
			service.Script(ProbeToken, pushtest.Answer{Status: tc.status, Body: `{"error":{"status":"` + tc.code + `"` + detail + `}}`})
			wantFinding(t, probe(t, s), tc.level, tc.part)
		})
	}
	t.Run("401 twice", func(t *testing.T) {
		service, s := start(t, time.Hour, nil)
		refusal := pushtest.Answer{Status: 401, Body: `{"error":{"status":"UNAUTHENTICATED"}}`}
		service.Script(ProbeToken, refusal, refusal)
		wantFinding(t, probe(t, s), finding.Fail, "the access token is refused")
	})
}

// TestProbeAccess has what the token service may say.
func TestProbeAccess(t *testing.T) {
	for _, tc := range []struct {
		status int
		body   string
		level  finding.Level
		part   string
	}{
		{400, `{"error":"invalid_grant"}`, finding.Fail, "make a new key"},
		{401, `{"error":"invalid_client"}`, finding.Fail, "pusher@chat-1234"},
		{503, "", finding.Warn, "later"},
		{200, `{}`, finding.Warn, "holds none"},
	} {
		t.Run(fmt.Sprint(tc.status, tc.body), func(t *testing.T) {
			service, s := start(t, time.Hour, nil)
			service.Script(pushtest.TokenPath, pushtest.Answer{Status: tc.status, Body: tc.body})
			wantFinding(t, probe(t, s), tc.level, tc.part)
		})
	}
}

// TestProbeUnreachable has no FCM, and no token service.
func TestProbeUnreachable(t *testing.T) {
	_, s := start(t, time.Hour, func(o *Options) { o.URL = "https://127.0.0.1:1" })
	wantFinding(t, probe(t, s), finding.Fail, "fcm: https://127.0.0.1:1 cannot be reached")
	_, s = start(t, time.Hour, func(o *Options) { o.ServiceAccount = pushtest.ServiceAccount(t, "https://127.0.0.1:1") })
	wantFinding(t, probe(t, s), finding.Fail, "for an access token: https://127.0.0.1:1 cannot be reached")
}
