package xmppside

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push"
	"eventpusher/backends/push/registration"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// What Prosody 0.12.3 and ejabberd 23.01 sent, and the answers that their users got
// through.
const (
	fromProsody = `<iq to='events.localhost' from='localhost' id='dmHCHDzSFs4m' type='set'><delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<iq type='set' from='alice@localhost/r1' id='en1' xml:lang='en' xmlns='jabber:client'><enable node='dev-1' jid='events.localhost' xmlns='urn:xmpp:push:0'>` +
		`<x type='submit' xmlns='jabber:x:data'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='secret'><value>tok</value></field></x>` +
		`</enable></iq></forwarded></delegation></iq>`
	toProsody = `<delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<iq xmlns='jabber:client' type='result' id='en1' from='alice@localhost' to='alice@localhost/r1'/></forwarded></delegation>`
	fromEjabberd = `<iq type='set' from='localhost' to='events.localhost' id='1'><delegation xmlns='urn:xmpp:delegation:1'><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<iq xmlns='jabber:client' type='set' id='en&apos;1' from='alice@localhost/R1' to='Alice@localhost'><enable xmlns='urn:xmpp:push:0' jid='events.localhost' node='dev-1'/></iq></forwarded></delegation></iq>`
	toEjabberd = `<delegation xmlns='urn:xmpp:delegation:1'><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<iq xmlns='jabber:client' type='result' id='en&#39;1' from='Alice@localhost' to='alice@localhost/R1'/></forwarded></delegation>`
)

// registering returns Users with a store.
func registering(t *testing.T) (delegator, store.Registrations) {
	t.Helper()
	kept, err := store.OpenRegistrations(filepath.Join(t.TempDir(), store.RegistrationsFile), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kept.Close() })
	backend := push.New(push.Options{})
	backend.Attach(kept, nil, nil)
	return delegator{NewUsers(UsersOptions{Push: backend, Hosts: jid.NewDomains("localhost")})}, kept
}

type delegator struct{ *Users }

// answerOf returns the answer to what localhost delegates, empty if that is none of its.
func (d delegator) answerOf(a *ask) string {
	if !a.of("localhost") {
		return ""
	}
	return string(a.answer(d.ask(context.Background(), "localhost", a, time.Now())))
}

func TestDelegated(t *testing.T) {
	for name, c := range map[string]struct {
		in, answer string
		services   int
	}{
		"Prosody":  {fromProsody, toProsody, 1},
		"ejabberd": {fromEjabberd, toEjabberd, 1},
	} {
		t.Run(name, func(t *testing.T) {
			u, kept := registering(t)
			a, err := readAsk([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.answer, u.answerOf(a)); diff != "" {
				t.Error(diff)
			}
			list, err := kept.Services(context.Background(), "alice@localhost")
			if err != nil || len(list) != c.services {
				t.Errorf("%v, %v", list, err)
			}
		})
	}
}

// delegated wraps an inner IQ.
func delegated(inner string) string {
	return `<iq type='set' from='localhost' to='events.localhost' id='1'><delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>` + inner + `</forwarded></delegation></iq>`
}

func inner(attributes, child string) string {
	return `<iq xmlns='jabber:client' id='i' ` + attributes + `>` + child + `</iq>`
}

const anEnable = `<enable xmlns='urn:xmpp:push:0' jid='events.localhost' node='n'/>`

// TestDelegatedRefuses: what is wrong with a request, and what the user learns.
func TestDelegatedRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		inner string
		error string // inside of error's start tag and condition; empty: no answer
	}{
		"get":                {inner(`type='get' from='alice@localhost/r1'`, anEnable), "<error type='cancel'><not-allowed "},
		"no node":            {inner(`type='set' from='alice@localhost/r1'`, `<enable xmlns='urn:xmpp:push:0' jid='events.localhost'/>`), "<error type='modify'><bad-request "},
		"another element":    {inner(`type='set' from='alice@localhost/r1'`, `<toggle xmlns='urn:xmpp:push:0'/>`), "<error type='modify'><bad-request "},
		"another's account":  {inner(`type='set' from='alice@localhost/r1' to='bob@localhost'`, anEnable), "<error type='auth'><forbidden "},
		"another domain":     {inner(`type='set' from='alice@localhost/r1' to='example.org'`, anEnable), "<error type='auth'><forbidden "},
		"of another host":    {inner(`type='set' from='alice@example.org/r1'`, anEnable), ""},
		"of the server":      {inner(`type='set' from='localhost'`, anEnable), ""},
		"of nobody":          {inner(`type='set'`, anEnable), ""},
		"addressed to a gap": {inner(`type='set' from='alice@localhost/r1' to='localhost/x'`, anEnable), "<error type='auth'><forbidden "},
	} {
		t.Run(name, func(t *testing.T) {
			u, kept := registering(t)
			a, err := readAsk([]byte(delegated(c.inner)))
			if err != nil {
				t.Fatal(err)
			}
			got := u.answerOf(a)
			want := ""
			if c.error != "" {
				to := string(a.recipient)
				if to == "" {
					to = "alice@localhost"
				}
				want = `<delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='error' id='i' from='` + to + `' to='alice@localhost/r1'>` +
					c.error + `xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq></forwarded></delegation>`
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if n, err := kept.Count(context.Background()); n != 0 || err != nil {
				t.Errorf("%d registrations, %v", n, err)
			}
		})
	}
}

func TestReadAskRefuses(t *testing.T) {
	sound := inner(`type='set' from='alice@localhost/r1'`, anEnable)
	for name, in := range map[string]string{
		"no XML":            "<iq",
		"no delegation":     "<iq>" + anEnable + "</iq>",
		"two requests":      delegated(sound + sound),
		"two delegations":   `<iq><delegation xmlns='urn:xmpp:delegation:2'/><delegation xmlns='urn:xmpp:delegation:2'/></iq>`,
		"nothing in it":     delegated(""),
		"an empty request":  delegated(inner(`type='set' from='alice@localhost/r1'`, "")),
		"two children":      delegated(inner(`type='set' from='alice@localhost/r1'`, anEnable+anEnable)),
		"another namespace": `<iq><delegation xmlns='urn:xmpp:delegation:0'><forwarded xmlns='urn:xmpp:forward:0'>` + sound + `</forwarded></delegation></iq>`,
		"not forwarded":     `<iq><delegation xmlns='urn:xmpp:delegation:2'>` + sound + `</delegation></iq>`,
	} {
		t.Run(name, func(t *testing.T) {
			if a, err := readAsk([]byte(in)); err == nil {
				t.Errorf("got %+v", a)
			}
		})
	}
}

// FuzzReadAsk: what is read of a delegated request before its turn is what is read in it.
func FuzzReadAsk(f *testing.F) {
	f.Add(fromProsody)
	f.Add(fromEjabberd)
	f.Add(delegated(inner(`type='set' from='alice@localhost/r1' to='bob@localhost'`, anEnable)))
	f.Add(delegated("<delay xmlns='urn:xmpp:delay'/>" + inner(`type='get' from='alice@localhost/r1'`, anEnable)))
	f.Add(delegated("</forwarded><forwarded xmlns='urn:xmpp:forward:0'>" + inner(`type='set'`, anEnable)))
	f.Fuzz(func(t *testing.T, iq string) {
		head, err := readHead([]byte(iq))
		a, wrong := readAsk([]byte(iq))
		if err != nil || wrong != nil {
			return
		}
		a.element = registration.Element{}
		if diff := cmp.Diff(a, head, cmp.AllowUnexported(ask{}, registration.Element{})); diff != "" {
			t.Errorf("head of %q (-whole +head):\n%s", iq, diff)
		}
		var any struct{ XMLName xml.Name }
		if err := xml.Unmarshal(a.answer(tooManyWait), &any); err != nil {
			t.Errorf("answer to %q: %v", iq, err)
		}
	})
}

// TestStoreAway: while registrations cannot be stored each client is told to try again, and
// the log is told once a minute.
func TestStoreAway(t *testing.T) {
	var log bytes.Buffer
	backend := push.New(push.Options{})
	backend.Attach(&brokenStore{}, nil, nil)
	u := NewUsers(UsersOptions{Push: backend, Log: slog.New(slog.NewTextHandler(&log, nil))})
	iq := []byte(`<iq xmlns='jabber:client'><enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='n'/></iq>`)
	for i := range 120 {
		refusal := u.enable(t.Context(), jid.JID(fmt.Sprintf("user%d@example.org/x", i)), iq, time.Now())
		if refusal == nil || *refusal != (xmpp.Refusal{Type: "wait", Condition: "internal-server-error"}) {
			t.Fatalf("a client is told %v", refusal)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines:\n%s", n, &log)
	}
}

// brokenStore is away.
type brokenStore struct{ store.Registrations }

func (*brokenStore) Services(context.Context, jid.JID) ([]store.Service, error) {
	return nil, fmt.Errorf("database: %w", errors.New("connection refused"))
}
