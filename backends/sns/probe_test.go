//go:build linux

package sns_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"eventpusher/backends/backendtest"
	"eventpusher/config"
	"eventpusher/internal/harness"
)

func TestProbeEmulator(t *testing.T) {
	e := harness.SNS(t)
	e.CreateTopic("user_message_sent")
	b := emulated(t, e, func(c *config.SNS) { c.MUCMessagesTopic = c.PMMessagesTopic })
	backendtest.WantFindings(t, b.Probe(t.Context()), []string{secretKey}, "FAIL create the topic", "OK user_message_sent is there")
	if n := len(e.Messages("user_message_sent")); n != 0 {
		t.Errorf("%d messages were published", n)
	}
	e.Stop()
	backendtest.WantFindings(t, b.Probe(t.Context()), []string{secretKey}, "FAIL refused", "FAIL refused")
}

// What AWS answers that the emulator does not.
func TestProbeAnswers(t *testing.T) {
	for code, want := range map[string]string{
		"AuthorizationError":    "WARN sns:GetTopicAttributes",
		"InvalidClientTokenId":  "FAIL access_key_id",
		"SignatureDoesNotMatch": "FAIL secret_access_key",
		"RequestExpired":        "FAIL clock",
		"Throttled":             "WARN ask again",
		"InternalError":         "WARN ask again",
	} {
		t.Run(code, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.FormValue("Action") != "GetTopicAttributes" {
					t.Errorf("called %s", r.FormValue("Action"))
				}
				w.WriteHeader(http.StatusBadRequest)
				_, _ = w.Write([]byte("<ErrorResponse xmlns='http://sns.amazonaws.com/doc/2010-03-31/'><Error><Type>Sender</Type><Code>" + code + "</Code><Message>no</Message></Error></ErrorResponse>"))
			}))
			defer server.Close()
			_, b := startBackend(t, func(c *config.SNS) {
				c.Host, c.PresenceUpdatesTopic, c.MUCMessagesTopic = server.URL, "", ""
			})
			backendtest.WantFindings(t, b.Probe(t.Context()), []string{secretKey}, want)
		})
	}
	_, b := startBackend(t, func(c *config.SNS) { c.PresenceUpdatesTopic, c.PMMessagesTopic, c.MUCMessagesTopic = "", "", "" })
	backendtest.WantFindings(t, b.Probe(t.Context()), []string{secretKey}, "WARN no topic")
}
