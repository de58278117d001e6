package xmppside

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"

	"mellium.im/xmpp/disco"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/registration"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/component"
	"eventpusher/internal/jid"
)

// Delegation1 and Delegation2 are the namespaces of namespace delegation (XEP-0355): version
// 1 is ejabberd's, version 2 Prosody's.
const (
	Delegation1 = "urn:xmpp:delegation:1"
	Delegation2 = "urn:xmpp:delegation:2"
)

const (
	// bareSuffix ends the node by which servers ask for what they tell of accounts.
	bareSuffix = ":bare:" + notify.NS
	nsForward  = "urn:xmpp:forward:0"
	nsClient   = "jabber:client"
	// nsStanzas is the namespace of stanza error conditions (RFC 6120 section 8.3.2).
	nsStanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"
)

// Delegation answers servers that delegate push to the component, so that they let their
// users register. The IQs come from the goroutine that reads the stream.
type Delegation struct {
	Hosts jid.Domains // that may delegate (see Delegators)
	// Asked hears which host asks what the component does; nil: nobody does.
	Asked func(host jid.JID)
	// request takes a request of a user of the host, with its head. nil: users are told to
	// try again.
	request func(q *component.IQ, a *ask)
}

// Handlers are for component.Options.
func (d *Delegation) Handlers() (list []component.IQHandler) {
	for _, ns := range [...]string{Delegation1, Delegation2} {
		list = append(list, component.IQHandler{
			Name: "delegated", Element: xml.Name{Space: ns, Local: "delegation"}, Type: component.Set, Handle: d.delegated,
		})
		for _, node := range [...]string{ns + "::" + notify.NS, ns + bareSuffix} {
			list = append(list, component.IQHandler{
				Name: "delegation_disco", Element: xml.Name{Space: disco.NSInfo, Local: "query"}, Type: component.Get, Node: node, Handle: d.nested,
			})
		}
	}
	return list
}

// nested says what the component does for the namespace that a server delegates.
func (d *Delegation) nested(q *component.IQ) {
	if d.Asked != nil {
		d.Asked(q.From)
	}
	if !d.Hosts.Has(q.From) {
		fail(q, notFound)
		return
	}
	_ = q.Result(delegationInfo(q.Node))
}

// delegated takes a request that a server delegates for a user of its own. A request that
// cannot be read, or that the host may not delegate, is answered by an error. All others are
// answered by a result, refusals too: to an error ejabberd answers its user nothing.
func (d *Delegation) delegated(q *component.IQ) {
	if !d.Hosts.Has(q.From) {
		fail(q, forbidden)
		return
	}
	a, err := readHead(q.Raw)
	switch {
	case err != nil || !a.of(q.From):
		fail(q, forbidden)
	case len(q.Raw) > maxRequest:
		_ = q.Result(a.answer(notAcceptable))
	case d.request == nil:
		_ = q.Result(a.answer(storeTrouble))
	default:
		d.request(q, a)
	}
}

// delegationInfo returns the disco#info payload that answers a server's question what the
// component does for the delegated namespace, for itself or for accounts (XEP-0355 section
// 7.2): push is the one thing, and for accounts the rules that it takes. It makes the server
// announce push to its users; ejabberd delegates nothing before both are answered.
func delegationInfo(node string) []byte {
	var w bytes.Buffer
	w.WriteString("<query xmlns='" + disco.NSInfo + "' node='" + node + "'><feature var='" + notify.NS + "'/>")
	if strings.HasSuffix(node, bareSuffix) {
		for _, feature := range decide.Features {
			w.WriteString("<feature var='" + feature + "'/>")
		}
	}
	w.WriteString("</query>")
	return w.Bytes()
}

// Delegators returns the hosts that may delegate: the served ones among the forwarders.
func Delegators(hosts, forwarders []string) (may []string) {
	served := jid.NewDomains(hosts...)
	for _, f := range forwarders {
		if served.Has(jid.Prepare(f)) {
			may = append(may, f)
		}
	}
	return may
}

// ask is a user's request as a server delegates it (XEP-0355 section 4.2): an IQ
// within an IQ.
type ask struct {
	// session is who asks, recipient whom; recipient is empty where the server has left it
	// out.
	session, recipient jid.JID

	version      string // the namespace of the delegation
	from, to, id string // of the inner IQ, as they came
	set          bool
	element      registration.Element // not of a head
}

// errNotDelegated says that an IQ is no delegation of one request.
var errNotDelegated = errors.New("not a delegated request")

// readAsk reads the IQ of a server that delegates a request. Whether the server may is
// the caller's to judge.
func readAsk(iq []byte) (*ask, error) {
	type element struct {
		XMLName xml.Name
		Attr    []xml.Attr             `xml:",any,attr"`
		Child   []registration.Element `xml:",any"`
	}
	var outer struct {
		Delegation []struct {
			XMLName   xml.Name
			Forwarded struct {
				IQ []element `xml:"iq"`
			} `xml:"urn:xmpp:forward:0 forwarded"`
		} `xml:"delegation"`
	}
	d := xml.NewDecoder(bytes.NewReader(iq))
	d.DefaultSpace = nsClient
	if err := d.Decode(&outer); err != nil {
		return nil, errNotDelegated
	}
	if len(outer.Delegation) != 1 || len(outer.Delegation[0].Forwarded.IQ) != 1 {
		return nil, errNotDelegated
	}
	version, inner := outer.Delegation[0].XMLName.Space, outer.Delegation[0].Forwarded.IQ[0]
	if version != Delegation1 && version != Delegation2 || inner.XMLName.Space != nsClient || len(inner.Child) != 1 {
		return nil, errNotDelegated
	}
	a := newAsk(version, inner.Attr)
	a.element = inner.Child[0]
	return a, nil
}

// readHead reads as much of the IQ as an answer takes: all but what is in the inner IQ.
func readHead(iq []byte) (*ask, error) {
	d := xml.NewDecoder(bytes.NewReader(iq))
	d.DefaultSpace = nsClient
	version := ""
	for depth := 0; depth < 4; {
		token, err := d.Token()
		if err != nil {
			return nil, errNotDelegated
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			if _, ends := token.(xml.EndElement); ends {
				return nil, errNotDelegated
			}
			continue
		}
		switch name := start.Name; {
		case depth == 1 && name.Local == "delegation" && (name.Space == Delegation1 || name.Space == Delegation2):
			version = name.Space
		case depth == 2 && name == xml.Name{Space: nsForward, Local: "forwarded"}:
		case depth == 3 && name == xml.Name{Space: nsClient, Local: "iq"}:
			return newAsk(version, start.Attr), nil
		case depth > 0:
			if d.Skip() != nil {
				return nil, errNotDelegated
			}
			continue
		}
		depth++
	}
	return nil, errNotDelegated
}

func newAsk(version string, attrs []xml.Attr) *ask {
	a := &ask{version: version}
	for _, attr := range attrs {
		if attr.Name.Space != "" {
			continue
		}
		switch attr.Name.Local {
		case "from":
			a.from, a.session = attr.Value, jid.Prepare(attr.Value)
		case "to":
			a.to, a.recipient = attr.Value, jid.Prepare(attr.Value)
		case "id":
			a.id = attr.Value
		case "type":
			a.set = attr.Value == "set"
		}
	}
	return a
}

// of reports whether a user of host asks: a server speaks for its own users alone.
func (a *ask) of(host jid.JID) bool {
	return jid.JID(a.session.Domain()) == host && a.session.Local() != ""
}

// answer returns the payload of the answer, which belongs into a result: to an error ejabberd
// passes nothing on, and its user would wait in vain. It nests the answer as the request was. Prosody counts children, so there is no
// space between the elements; the inner addresses are those of the request, swapped.
func (a *ask) answer(refusal *xmpp.Refusal) []byte {
	var w bytes.Buffer
	kind := "result"
	if refusal != nil {
		kind = "error"
	}
	from := a.to
	if from == "" {
		from = string(jid.JID(a.from).Bare())
	}
	fmt.Fprintf(&w, "<delegation xmlns='%s'><forwarded xmlns='%s'><iq xmlns='%s' type='%s' id='", a.version, nsForward, nsClient, kind)
	xml.EscapeText(&w, []byte(a.id))
	w.WriteString("' from='")
	xml.EscapeText(&w, []byte(from))
	w.WriteString("' to='")
	xml.EscapeText(&w, []byte(a.from))
	w.WriteString("'")
	if refusal == nil {
		w.WriteString("/>")
	} else {
		fmt.Fprintf(&w, "><error type='%s'><%s xmlns='%s'/>", refusal.Type, refusal.Condition, nsStanzas)
		if refusal.Text != "" {
			w.WriteString("<text xmlns='" + nsStanzas + "'>")
			xml.EscapeText(&w, []byte(refusal.Text))
			w.WriteString("</text>")
		}
		w.WriteString("</error></iq>")
	}
	w.WriteString("</forwarded></delegation>")
	return w.Bytes()
}
