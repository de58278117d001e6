package registration

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// publishForm is a form that enable may carry, with these fields in it.
func publishForm(fields string) string {
	return `<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>` + fields + `</x>`
}

func enable(attributes, children string) string {
	return `<enable xmlns='urn:xmpp:push:0' ` + attributes + `>` + children + `</enable>`
}

const both = `jid='push.example.org' node='phone'`

// parse reads the child of an IQ.
func parse(payload []byte) (Request, error) {
	var e Element
	if xml.Unmarshal(payload, &e) != nil {
		return Request{}, ErrBadRequest
	}
	return e.Request()
}

func TestParse(t *testing.T) {
	phone := store.Service{PubSub: "push.example.org", Node: "phone"}
	for name, c := range map[string]struct {
		in   string
		want Request
	}{
		"no form":             {enable(both, ""), Request{Enable: true, Service: phone}},
		"empty form":          {enable(both, publishForm("")), Request{Enable: true, Service: phone}},
		"resource cut":        {enable(`jid='Push.Example.org/x' node='phone'`, ""), Request{Enable: true, Service: phone}},
		"A-label kept":        {enable(`jid='XN--bcher-kva.example/x' node='phone'`, ""), Request{Enable: true, Service: store.Service{PubSub: "xn--bcher-kva.example", Node: "phone"}}},
		"localpart kept":      {enable(`jid='Node@push.example.org' node='phone'`, ""), Request{Enable: true, Service: store.Service{PubSub: "node@push.example.org", Node: "phone"}}},
		"node not normalised": {enable(`jid='push.example.org' node=' PhOnE '`, ""), Request{Enable: true, Service: store.Service{PubSub: "push.example.org", Node: " PhOnE "}}},
		"fields": {
			enable(both, publishForm(`<field var='service'><value>apns</value></field><field var='device_id'><value>a&amp;b</value></field>`)),
			Request{Enable: true, Service: store.Service{PubSub: "push.example.org", Node: "phone", Options: []notify.Field{{Name: "service", Value: "apns"}, {Name: "device_id", Value: "a&b"}}}},
		},
		"empty value, no name, same name": {
			enable(both, publishForm(`<field var='a'><value/></field><field><value>x</value><value>y</value></field><field var='b'><value>1</value></field><field var='b'><value>2</value></field>`)),
			Request{Enable: true, Service: store.Service{PubSub: "push.example.org", Node: "phone", Options: []notify.Field{{Name: "a", Value: ""}, {Name: "b", Value: "2"}}}},
		},
		"other children are nothing": {enable(both, "<x xmlns='urn:example'/><y/>"), Request{Enable: true, Service: phone}},
		"rules": {
			enable(both, "<muted xmlns='tigase:push:filter:muted:0'><item jid='Romeo@x'/></muted>"+publishForm("<field var='a'><value>1</value></field>")),
			Request{Enable: true, Service: store.Service{PubSub: "push.example.org", Node: "phone", Options: []notify.Field{{Name: "a", Value: "1"}},
				Rules: &decide.UserRules{Muted: map[jid.JID]int64{"romeo@x": 0}}}},
		},
		"disable ignores rules":  {`<disable xmlns='urn:xmpp:push:0' jid='push.example.org' node='phone'><muted xmlns='tigase:push:filter:muted:0'><item/></muted></disable>`, Request{Service: phone}},
		"disable a node":         {`<disable xmlns='urn:xmpp:push:0' jid='push.example.org' node='phone'/>`, Request{Service: phone}},
		"disable all":            {`<disable xmlns='urn:xmpp:push:0' jid='push.example.org'/>`, Request{AllNodes: true, Service: store.Service{PubSub: "push.example.org"}}},
		"disable ignores a form": {`<disable xmlns='urn:xmpp:push:0' jid='push.example.org' node='phone'><x xmlns='jabber:x:data'/></disable>`, Request{Service: phone}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	field := func(inner string) string { return publishForm("<field var='a'>" + inner + "</field>") }
	for name, in := range map[string]string{
		"nothing":                   "",
		"no XML":                    "enable",
		"cut off":                   "<enable xmlns='urn:xmpp:push:0' jid='a' node='b'>",
		"no namespace":              `<enable jid='push.example.org' node='phone'/>`,
		"another element":           `<toggle xmlns='urn:xmpp:push:0' jid='push.example.org' node='phone'/>`,
		"no attributes":             enable("", ""),
		"no node":                   enable("jid='push.example.org'", ""),
		"no jid":                    enable("node='phone'", ""),
		"empty jid":                 enable("jid='' node='phone'", ""),
		"jid without domain":        enable("jid='a@' node='phone'", ""),
		"jid in another namespace":  enable("xmlns:p='urn:p' p:jid='push.example.org' node='phone'", ""),
		"empty node":                enable("jid='push.example.org' node=''", ""),
		"long node":                 enable("jid='push.example.org' node='"+strings.Repeat("n", store.MaxName+1)+"'", ""),
		"disable without jid":       `<disable xmlns='urn:xmpp:push:0' node='phone'/>`,
		"disable with empty jid":    `<disable xmlns='urn:xmpp:push:0' jid=''/>`,
		"disable with empty node":   `<disable xmlns='urn:xmpp:push:0' jid='push.example.org' node=''/>`,
		"form not submitted":        enable(both, "<x xmlns='jabber:x:data' type='form'><field var='FORM_TYPE'><value>"+notify.FormOptions+"</value></field></x>"),
		"form without type":         enable(both, "<x xmlns='jabber:x:data'><field var='FORM_TYPE'><value>"+notify.FormOptions+"</value></field></x>"),
		"form for something else":   enable(both, "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:example</value></field></x>"),
		"form with a padded type":   enable(both, "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value> "+notify.FormOptions+"</value></field></x>"),
		"form without FORM_TYPE":    enable(both, "<x xmlns='jabber:x:data' type='submit'><field var='a'><value>b</value></field></x>"),
		"two FORM_TYPEs":            enable(both, "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>"+notify.FormOptions+"</value><value>"+notify.FormOptions+"</value></field></x>"),
		"field without value":       enable(both, field("")),
		"field with two values":     enable(both, field("<value>1</value><value>2</value>")),
		"value in no namespace":     enable(both, field("<value xmlns=''>1</value>")),
		"rules as an option":        enable(both, publishForm("<field var='"+store.FieldRules+"'><value>{}</value></field>")),
		"form above the bound":      enable(both, field("<value>"+strings.Repeat("v", maxForm)+"</value>")),
		"more fields than anything": enable(both, publishForm(strings.Repeat("<field var='a'><value>1</value></field>", 1)+manyFields(maxFields))),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parse([]byte(in)); !errors.Is(err, ErrBadRequest) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("<field var='f" + strings.Repeat("x", i) + "'><value>1</value></field>")
	}
	return b.String()
}

// FuzzParse looks for panics and for requests that break what Element.Request promises.
func FuzzParse(f *testing.F) {
	f.Add(enable(both, publishForm("<field var='service'><value>apns</value></field>")))
	f.Add(`<disable xmlns='urn:xmpp:push:0' jid='push.example.org'/>`)
	f.Add(enable(both, "<muted xmlns='tigase:push:filter:muted:0'><item jid='a@b' until='2026-01-02T03:04:05Z'/></muted><groupchat xmlns='tigase:push:filter:groupchat:0'>"+
		"<room jid='c@d' allow='mentioned' nick='n'/></groupchat><encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='300'>AAECAwQFBgcICQoLDA0ODw==</encrypt>"))
	f.Fuzz(func(t *testing.T, in string) {
		r, err := parse([]byte(in))
		if err != nil {
			if !errors.Is(err, ErrBadRequest) && !errors.As(err, new(*decide.RulesError)) {
				t.Fatal(err)
			}
			return
		}
		s := r.Service
		if s.PubSub.Domain() == "" || !s.PubSub.IsBare() || (s.Node == "") != r.AllNodes || r.Enable && r.AllNodes || len(s.Options) > maxFields {
			t.Errorf("%+v", r)
		}
		names := map[string]bool{}
		for _, o := range s.Options {
			if names[o.Name] || o.Name == "FORM_TYPE" {
				t.Errorf("%+v", s.Options)
			}
			names[o.Name] = true
		}
		var kept store.Service // every store keeps it as JSON
		text, err := json.Marshal(s)
		if err == nil {
			err = json.Unmarshal(text, &kept)
		}
		if diff := cmp.Diff(s.Rules, kept.Rules); err != nil || diff != "" && utf8.ValidString(in) {
			t.Errorf("%v %s", err, diff)
		}
	})
}
