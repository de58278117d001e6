package push

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"mellium.im/xmpp/disco"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/registration"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/internal/jid"
)

// The namespaces of namespace delegation (XEP-0355): version 1 is ejabberd's,
// version 2 Prosody's.
const (
	Delegation1 = "urn:xmpp:delegation:1"
	Delegation2 = "urn:xmpp:delegation:2"
)

const (
	nsForward = "urn:xmpp:forward:0"
	nsClient  = "jabber:client"
	// nsStanzas is the namespace of stanza error conditions (RFC 6120 section 8.3.2).
	nsStanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"
)

// DelegationNodes are the disco#info nodes under which a server asks what the
// component does for the delegated namespace: for itself, and for accounts.
// Answered with the namespace as the one feature, they make the server announce push
// to its users; ejabberd delegates nothing before both are.
func DelegationNodes() []string {
	var nodes []string
	for _, ns := range [...]string{Delegation1, Delegation2} {
		nodes = append(nodes, ns+"::"+notify.NS, ns+":bare:"+notify.NS)
	}
	return nodes
}

// DelegationInfo is the disco#info payload that answers a server's question for one of
// DelegationNodes (XEP-0355 section 7.2): push is the one thing done there.
func DelegationInfo(node string) []byte {
	return []byte("<query xmlns='" + disco.NSInfo + "' node='" + node + "'><feature var='" + notify.NS + "'/></query>")
}

// Delegators returns the hosts that may delegate: the served ones among the forwarders.
func Delegators(hosts, forwarders []string) jid.Domains {
	served := jid.NewDomains(hosts...)
	var may []string
	for _, f := range forwarders {
		if served.Has(jid.Prepare(f)) {
			may = append(may, f)
		}
	}
	return jid.NewDomains(may...)
}

// Ask is a user's request as a server delegates it (XEP-0355 section 4.2): an IQ
// within an IQ.
type Ask struct {
	// Session is who asks, To whom; To is empty where the server has left it out.
	Session, To jid.JID

	version      string // the namespace of the delegation
	from, to, id string // of the inner IQ, as they came
	set          bool
	element      registration.Element
}

// errNotDelegated says that an IQ is no delegation of one request.
var errNotDelegated = errors.New("not a delegated request")

// ReadAsk reads the IQ of a server that delegates a request. Whether the server may is
// the caller's to judge.
func ReadAsk(iq []byte) (*Ask, error) {
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
	a := &Ask{version: version, element: inner.Child[0]}
	for _, attr := range inner.Attr {
		if attr.Name.Space != "" {
			continue
		}
		switch attr.Name.Local {
		case "from":
			a.from, a.Session = attr.Value, jid.Prepare(attr.Value)
		case "to":
			a.to, a.To = attr.Value, jid.Prepare(attr.Value)
		case "id":
			a.id = attr.Value
		case "type":
			a.set = attr.Value == "set"
		}
	}
	return a, nil
}

// Delegated carries out a request that the server host has delegated and returns the
// payload of the answer, which belongs into a result: to an error ejabberd passes
// nothing on, and its user would wait in vain. The payload is nil unless the request is
// of a user of the host's. received is when the request was.
func (b *Backend) Delegated(ctx context.Context, host jid.JID, a *Ask, received time.Time) []byte {
	if !a.Of(host) {
		return nil
	}
	return a.answer(b.ask(ctx, host, a, received))
}

// Of reports whether a user of host asks: a server speaks for its own users alone.
func (a *Ask) Of(host jid.JID) bool {
	return jid.JID(a.Session.Domain()) == host && a.Session.Local() != ""
}

// Refused returns the payload of the answer to a request that is not carried out, which
// belongs into a result as that of Delegated does.
func (a *Ask) Refused(why *xmpp.Refusal) []byte { return a.answer(why) }

func (b *Backend) ask(ctx context.Context, host jid.JID, a *Ask, received time.Time) *xmpp.Refusal {
	switch {
	case !a.set:
		return &xmpp.Refusal{Type: "cancel", Condition: "not-allowed"}
	case a.To != "" && a.To != a.Session.Bare() && a.To != host:
		// Both servers also delegate what a user sends to somebody else's account.
		return &xmpp.Refusal{Type: "auth", Condition: "forbidden"}
	}
	return b.verdict(b.register(ctx, a.Session, &a.element, received))
}

// verdict is what the client is told: nil if all went well.
func (b *Backend) verdict(err error) *xmpp.Refusal {
	var refusal *xmpp.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return refusal
	}
	b.complaints.Add(slog.LevelError, "push: a registration could not be stored, the client was told to try again", err)
	return Unavailable()
}

// Direct carries out a request that a session has addressed to the component itself;
// iq is the whole element, received when it was. It returns nil when the request is stored, else
// the answer.
func (b *Backend) Direct(ctx context.Context, session jid.JID, iq []byte, received time.Time) *xmpp.Refusal {
	var outer struct {
		Child []registration.Element `xml:",any"`
	}
	if err := xml.Unmarshal(iq, &outer); err != nil || len(outer.Child) != 1 {
		return badRequest()
	}
	return b.verdict(b.register(ctx, session, &outer.Child[0], received))
}

// answer nests the answer as the request was. Prosody counts children, so there is no
// space between the elements; the inner addresses are those of the request, swapped.
func (a *Ask) answer(refusal *xmpp.Refusal) []byte {
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
		fmt.Fprintf(&w, "><error type='%s'><%s xmlns='%s'/></error></iq>", refusal.Type, refusal.Condition, nsStanzas)
	}
	w.WriteString("</forwarded></delegation>")
	return w.Bytes()
}
