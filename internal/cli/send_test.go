package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestSend(t *testing.T) {
	var body string
	code := http.StatusNoContent
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = r.URL.Path + " " + string(b)
		w.Header().Set("Server", "gateway")
		w.Header().Set("Set-Cookie", "hunter2")
		w.WriteHeader(code)
	}))
	defer receiver.Close()
	path := write(t, fmt.Sprintf(`
[component]
name = "events.example.org"
secret = "x"
[general]
hosts = ["example.org"]
[[destination]]
name = "crm"
type = "http"
url = "%s/hunter2"
events = ["user_status.offline", "chat"]
when = "false"
format = "json"
[modules.mod_event_pusher.push]
`, receiver.URL))
	for _, tc := range []struct {
		name        string
		answer      int
		args        []string
		code        int
		said, wrong string // on stdout, on stderr
		got         string // what the receiver got
	}{
		{"taken", 204, []string{"-to", "crm"}, 0, "HTTP/1.1 204 No Content\n  Date: ", "", "/hunter2 {"},
		{"of a kind", 204, []string{"-to", "crm", "-kind", "user_status"}, 0, "crm has taken it, in ", "", `"kind":"user_status","type":"offline"`},
		{"refused", 403, []string{"-to", "crm"}, 1, "403 Forbidden", "a real event would be kept and tried again", ""},
		{"for good", 400, []string{"-to", "crm"}, 1, "Server: gateway", "a real event would become a dead letter", ""},
		{"not wanted", 204, []string{"-to", "crm", "-kind", "groupchat"}, 1, "", "gets no events of groupchat", ""},
		{"unknown kind", 204, []string{"-to", "crm", "-kind", "gossip"}, 2, "", `"gossip" is no sort of events; these are: chat.in`, ""},
		{"unknown destination", 204, []string{"-to", "crn"}, 2, "", "these are configured: push, crm", ""},
		{"push", 204, []string{"-to", "push"}, 1, "", "push explain", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			body, code = "", tc.answer
			exit, stdout, stderr := invoke(append([]string{"send", "-config", path}, tc.args...)...)
			if exit != tc.code || !strings.Contains(stdout, tc.said) || !strings.Contains(stderr, tc.wrong) || strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("%d\n%s%s", exit, stdout, stderr)
			}
			if tc.got != "" && (!strings.Contains(body, `"eventpusher_sample":true`) || !strings.Contains(body, tc.got)) {
				t.Errorf("the receiver got %s", body)
			}
			if (body != "") != (tc.said != "") {
				t.Errorf("the receiver got %q", body)
			}
		})
	}
}
