package http

import (
	"errors"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"eventpusher/backends"
)

func TestJoinURL(t *testing.T) {
	for _, tc := range []struct{ host, prefix, path, want string }{
		{"http://localhost:8000", "/", "", "http://localhost:8000/"},
		{"http://localhost:8000", "", "", "http://localhost:8000/"},
		{"http://localhost:8000/", "/", "notifications", "http://localhost:8000/notifications"},
		{"http://localhost", "/webservice", "/notifications", "http://localhost/webservice/notifications"},
		{"http://localhost", "/webservice/", "notifications", "http://localhost/webservice/notifications"},
		{"http://localhost", "/webservice/", "//notifications/", "http://localhost/webservice/notifications/"},
		{"http://localhost", "webservice", "a/b", "http://localhost/webservice/a/b"},
		{"http://localhost", "/webservice", "", "http://localhost/webservice"},
		{"https://example.org", "/x?a=1", "", "https://example.org/x?a=1"},
		{"https://example.org", "/x", "y?token=1", "https://example.org/x/y?token=1"},
	} {
		u, err := JoinURL(tc.host, tc.prefix, tc.path)
		if err != nil || u.String() != tc.want {
			t.Errorf("JoinURL(%q, %q, %q) = %v, %v, want %s", tc.host, tc.prefix, tc.path, u, err, tc.want)
		}
	}
}

func TestJoinURLRefuses(t *testing.T) {
	for _, host := range []string{"", "localhost", "localhost:8000", "ftp://u:hunter2@localhost", "http://", "http://u:hunter2@loc alhost", "http://u:hunter2@localhost:80a"} {
		_, err := JoinURL(host, "/", "")
		if err == nil {
			t.Errorf("joinURL accepts host %q", host)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func FuzzJoinURL(f *testing.F) {
	f.Add("http://u:p@localhost:8000/", "/webservice/", "/a?b#c")
	f.Add("https://[::1]", "%2f", "..")
	f.Fuzz(func(t *testing.T, host, prefix, path string) {
		u, err := JoinURL(host, prefix, path)
		if err == nil && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			t.Errorf("JoinURL(%q, %q, %q) = %v", host, prefix, path, u)
		}
	})
}

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		status     int
		retryAfter string
		want       string
	}{
		{200, "", ""}, {201, "", ""}, {204, "5", ""}, {299, "", ""},
		{300, "", "paused"}, {301, "", "paused"}, {304, "", "paused"}, {308, "", "paused"},
		{400, "", "permanent"}, {401, "", "paused"}, {403, "", "paused"}, {404, "", "paused"}, {405, "9", "paused"},
		{408, "", "transient"}, {410, "", "paused"}, {414, "", "permanent"}, {415, "", "permanent"}, {418, "", "transient"}, {421, "", "paused"}, {413, "", "too_large"}, {422, "", "permanent"},
		{425, "", "transient"}, {429, "", "transient"}, {429, "7", "retry_after"}, {451, "", "transient"},
		{500, "", "transient"}, {501, "", "transient"}, {502, "", "transient"}, {503, "3", "retry_after"},
		{503, "soon", "transient"}, {504, "0", "transient"}, {599, "", "transient"},
	} {
		resp := &nethttp.Response{StatusCode: tc.status, Header: nethttp.Header{}}
		if tc.retryAfter != "" {
			resp.Header.Set("Retry-After", tc.retryAfter)
		}
		err := verdict(resp, time.Now())
		if err != nil {
			err = wrapVerdict("http://localhost/", err)
		}
		if got := backends.Reason(err); got != tc.want {
			t.Errorf("status %d, Retry-After %q: %v (%q), want %q", tc.status, tc.retryAfter, err, got, tc.want)
		}
		var permanent *backends.PermanentError
		if tc.status == 413 && !errors.As(err, &permanent) {
			t.Errorf("status 413 is not permanent: %v", err)
		}
	}
}
