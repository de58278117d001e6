package xmppside

import (
	"context"
	"encoding/xml"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"eventpusher/component"
)

// withoutNames makes each look-up of a name fail at once.
func withoutNames(f *testing.F) {
	answering := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no resolver")
	}}
	f.Cleanup(func() { net.DefaultResolver = answering })
}

// FuzzCommand: a user can send any IQ as a command. The answer is one element, or an error of
// the standard's.
func FuzzCommand(f *testing.F) {
	withoutNames(f)
	fix := newFixture(f)
	c := fix.register(f, bob, "token")
	for _, iq := range [][]byte{
		commandIQ(registerDevice, "", ""), commandIQ(registerDevice, "sessionid='s' action='complete'", formOf("kind", "fcm", "app", "chat", "token", "t")),
		commandIQ(registerDevice, "", formOf("kind", "webpush", "endpoint", "https://192.0.2.1/x", "p256dh", "AAAA", "auth", "AAAA")),
		commandIQ(unregisterDevice, "action='next'", formOf("node", c.Node)), commandIQ(listDevices, "", ""), commandIQ(listDevices, "action='cancel'", ""),
		commandIQ("nothing", "action='prev'", "<x xmlns='jabber:x:data' type='cancel'/>"),
	} {
		f.Add(string(iq))
	}
	f.Fuzz(func(t *testing.T, iq string) {
		payload, err := fix.command(t.Context(), bob+"/phone", []byte(iq))
		var refusal *component.StanzaError
		if err != nil {
			if !errors.As(err, &refusal) || refusal.Type == "" || refusal.Condition == "" || len(refusal.Text) > 500 {
				t.Errorf("%q: %v", iq, err)
			}
			return
		}
		var answer struct{ XMLName xml.Name }
		if err := xml.Unmarshal(payload, &answer); err != nil || answer.XMLName.Space != nsCommands {
			t.Errorf("%q is answered %q: %v", iq, payload, err)
		}
	})
}

// FuzzRegistrationBody: what an application posts, with any query, is answered by a status
// that means something, and never by one that says that we have failed.
func FuzzRegistrationBody(f *testing.F) {
	withoutNames(f)
	fix := newFixture(f)
	f.Add("POST", "", `{"user": "bob@localhost", "kind": "fcm", "token": "t0k"}`)
	f.Add("POST", "", `{"kind": "webpush", "endpoint": "https://192.0.2.1/x", "p256dh": "AAAA", "auth": "AAAA"}`)
	f.Add("GET", "user=bob@localhost", "")
	f.Add("DELETE", "user=bob@localhost&node=x", "")
	f.Fuzz(func(t *testing.T, method, query, body string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+Path, strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		fix.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError || w.Code < 200 || w.Body.Len() > 64<<10 {
			t.Errorf("%s ?%s %q: %d %.200s", method, query, body, w.Code, w.Body)
		}
	})
}
