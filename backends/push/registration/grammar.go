// Package registration reads how users ask for push notifications: enable and disable in
// urn:xmpp:push:0 (XEP-0357 section 5), with the checks of MongooseIM
// (src/event_pusher/mod_event_pusher_push.erl).
package registration

import (
	"encoding/xml"
	"errors"

	xmppjid "mellium.im/xmpp/jid"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/internal/dataform"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// Bounds of a request, beside those of names: a form is for a handful of short values.
const (
	maxFields = 32
	maxForm   = 8 << 10
)

// ErrBadRequest says that a request breaks the grammar; the answer to it is
// bad-request, whatever the rule.
var ErrBadRequest = errors.New("not a sound enable or disable of " + notify.NS)

// Request is what a user asked for.
type Request struct {
	// Enable says that Service is to be enabled; otherwise it is to be disabled,
	// and AllNodes says that every node of the push service is.
	Enable   bool
	AllNodes bool
	Service  store.Service
}

// Element is the child of an IQ, whatever it is. It implements xml.Unmarshaler.
type Element struct {
	name  xml.Name
	attr  []xml.Attr
	forms []dataform.Form
	rules decide.Elements
}

// UnmarshalXML implements xml.Unmarshaler. It takes any element.
func (e *Element) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	var children struct {
		Forms []dataform.Form `xml:"jabber:x:data x"`
		decide.Elements
	}
	if err := d.DecodeElement(&children, &start); err != nil {
		return err
	}
	*e = Element{start.Name, start.Attr, children.Forms, children.Elements}
	return nil
}

// Request returns what an enable or disable asks for. It returns ErrBadRequest for
// everything that MongooseIM answers with bad-request, and for what is larger than
// anybody needs: names above 250 bytes, more than 32 fields or 8 KiB of them. What is wrong
// with rules is a *decide.RulesError.
//
// A resource in jid is cut. A form without fields beside FORM_TYPE is as good as none;
// of two fields with one name the last one counts, fields without a name do not.
func (e *Element) Request() (Request, error) {
	if e.name.Space != notify.NS || e.name.Local != "enable" && e.name.Local != "disable" {
		return Request{}, ErrBadRequest
	}
	r := Request{Enable: e.name.Local == "enable"}
	address, _ := attribute(e.attr, "jid")
	_, err := xmppjid.Parse(address)
	if err != nil {
		return Request{}, ErrBadRequest
	}
	r.Service.PubSub = jid.Prepare(address).Bare() // mellium would write A-labels anew
	node, given := attribute(e.attr, "node")
	switch {
	case given && node == "", len(node) > store.MaxName, len(r.Service.PubSub) > store.MaxName:
		return Request{}, ErrBadRequest
	case !given && r.Enable:
		return Request{}, ErrBadRequest
	}
	r.Service.Node, r.AllNodes = node, !given
	if !r.Enable {
		return r, nil
	}
	if len(e.forms) > 0 {
		if r.Service.Options, err = options(&e.forms[0]); err != nil {
			return Request{}, err
		}
	}
	r.Service.Rules, err = e.rules.Rules()
	return r, err
}

func attribute(list []xml.Attr, name string) (string, bool) {
	for _, a := range list {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value, true
		}
	}
	return "", false
}

// options returns the fields of a submitted publish-options form.
func options(f *dataform.Form) ([]notify.Field, error) {
	var list []notify.Field
	purpose, size := "", 0
	for _, field := range f.Fields {
		switch {
		case field.Name == "":
			continue
		case field.Name == store.FieldRules:
			return nil, ErrBadRequest
		case len(field.Values) != 1:
			return nil, ErrBadRequest
		}
		value := field.Values[0]
		if field.Name == dataform.FormType {
			if purpose != "" && purpose != value {
				return nil, ErrBadRequest
			}
			purpose = value
			continue
		}
		size += len(field.Name) + len(value)
		list = set(list, notify.Field{Name: field.Name, Value: value})
	}
	if f.Type != dataform.Submit || purpose != notify.FormOptions || len(list) > maxFields || size > maxForm {
		return nil, ErrBadRequest
	}
	return list, nil
}

// set adds a field or gives the one of that name its value.
func set(list []notify.Field, f notify.Field) []notify.Field {
	for i := range list {
		if list[i].Name == f.Name {
			list[i].Value = f.Value
			return list
		}
	}
	return append(list, f)
}
