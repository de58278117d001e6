package component

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/ping"
	"mellium.im/xmpp/version"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// software is the name that disco#info and jabber:iq:version give.
const software = "eventpusher"

// IQHandler answers one kind of request.
type IQHandler struct {
	// Name labels the requests in eventpusher_iqs_total.
	Name string
	// Element is the name of the request's one child, Type the IQ's type.
	Element xml.Name
	Type    RequestType
	// Node restricts the handler to requests whose child has this node; without it,
	// it takes those of every node that no other handler names.
	Node string
	// Features are what disco#info lists for it (XEP-0030), Identity what the component
	// is because of it, beside its own; empty: nothing.
	Features []string
	Identity Identity
	// Handle takes the request in the order of the stream, from the goroutine that
	// reads it: it must not block, and answers later whatever takes time.
	Handle func(*IQ)
}

// Identity is one of the registered pairs of category and type (XEP-0030).
type Identity struct{ Category, Type string }

// iqKey is what an IQHandler is chosen by.
type iqKey struct {
	element xml.Name
	kind    RequestType
	node    string
}

// responder answers the IQs that are addressed to the component (RFC 6120 section
// 8.2.3 demands an answer to each), by its handlers or with an error. Messages and
// presences, subscriptions and probes included, are never answered: a component that
// says nothing about itself gives no grounds for loops, and whoever wants a
// subscription adds it on the server.
type responder struct {
	name     jid.JID
	version  string
	handlers map[iqKey]*IQHandler
	info     []byte // the answer to disco#info
	checker  *checker
	metrics  *Metrics
	dropped  prometheus.Counter
}

// newResponder returns a responder for what every component answers, disco, ping and
// version, and for more.
func newResponder(name, softwareVersion string, more []IQHandler, c *checker, m *Metrics) (*responder, error) {
	r := &responder{name: jid.Prepare(name), version: softwareVersion, handlers: make(map[iqKey]*IQHandler), checker: c, metrics: m, dropped: m.iqs.WithLabelValues("dropped")}
	all := append([]IQHandler{
		{Name: "disco", Element: xml.Name{Space: disco.NSInfo, Local: "query"}, Type: Get, Features: []string{disco.NSInfo}, Handle: r.discoInfo},
		{Name: "disco", Element: xml.Name{Space: disco.NSItems, Local: "query"}, Type: Get, Handle: r.discoItems},
		{Name: "ping", Element: xml.Name{Space: ping.NS, Local: "ping"}, Type: Get, Features: []string{ping.NS}, Handle: r.ping},
		{Name: "version", Element: xml.Name{Space: version.NS, Local: "query"}, Type: Get, Features: []string{version.NS}, Handle: r.softwareVersion},
	}, more...)
	var features []string
	identities := []Identity{{"component", "generic"}}
	for i := range all {
		h := &all[i]
		key := iqKey{h.Element, h.Type, h.Node}
		if h.Name == "" || h.Handle == nil || h.Element.Local == "" || h.Type != Get && h.Type != Set {
			return nil, fmt.Errorf("component: the handler of %s %s %s lacks a name, an element, a type or a function", h.Type, h.Element.Space, h.Element.Local)
		}
		if r.handlers[key] != nil {
			return nil, fmt.Errorf("component: two handlers want the IQs of %s %s %s, node %q", h.Type, h.Element.Space, h.Element.Local, h.Node)
		}
		r.handlers[key] = h
		features = append(features, h.Features...)
		if h.Identity != (Identity{}) && !slices.Contains(identities, h.Identity) {
			identities = append(identities, h.Identity)
		}
	}
	slices.Sort(features)
	r.info = append(r.info, "<query xmlns='"+disco.NSInfo+"'>"...)
	for _, id := range identities {
		r.info = append(appendEscaped(append(r.info, "<identity category='"...), id.Category), "' type='"...)
		r.info = append(appendEscaped(r.info, id.Type), "' name='"+software+"'/>"...)
	}
	for _, f := range slices.Compact(features) {
		r.info = append(r.info, "<feature var='"...)
		r.info = append(appendEscaped(r.info, f), "'/>"...)
	}
	r.info = append(r.info, "</query>"...)
	return r, nil
}

// handle gives a request to its handler. frame is copied.
func (r *responder) handle(q *stanza.IQ, frame []byte, out *outbound) {
	to := q.To
	if to == "" {
		to = string(r.name)
	}
	req := &IQ{
		From: jid.Prepare(q.From), To: jid.Prepare(to), Type: RequestType(q.Type), from: q.From, to: to, id: q.ID,
		out: out, checker: r.checker, dropped: r.dropped,
	}
	kind := "unsupported"
	var h *IQHandler
	switch {
	case q.From == "" || jid.JID(req.To.Domain()) != r.name:
		// Nobody to answer; and an answer from another domain than ours would cost the
		// whole stream.
		kind = "unanswerable"
	case !q.IsRequest():
		kind = "bad_request"
		_ = req.Fail(StanzaError{Type: "modify", Condition: "bad-request"}) // counted
	default:
		req.Element, req.Node = q.Child, q.Node
		if h = r.handlers[iqKey{q.Child, req.Type, req.Node}]; h == nil {
			h = r.handlers[iqKey{q.Child, req.Type, ""}]
		}
		if h == nil {
			_ = req.Fail(StanzaError{Type: "cancel", Condition: "service-unavailable"}) // counted
			break
		}
		kind = h.Name
		req.Raw = append([]byte(nil), frame...)
		h.Handle(req)
	}
	r.metrics.iqs.WithLabelValues(kind).Inc()
}

// The answers below are counted where they are dropped.

// noNode answers a request about a node that nobody knows (XEP-0030 section 7).
func noNode(q *IQ) bool {
	if q.Node == "" {
		return false
	}
	_ = q.Fail(StanzaError{Type: "cancel", Condition: "item-not-found"})
	return true
}

func (r *responder) discoInfo(q *IQ) {
	if !noNode(q) {
		_ = q.Result(r.info)
	}
}

func (r *responder) discoItems(q *IQ) {
	if !noNode(q) {
		_ = q.Result([]byte("<query xmlns='" + disco.NSItems + "'/>"))
	}
}

func (r *responder) ping(q *IQ) { _ = q.Result(nil) }

func (r *responder) softwareVersion(q *IQ) {
	var b strings.Builder
	b.WriteString("<query xmlns='" + version.NS + "'><name>" + software + "</name><version>")
	b.WriteString(stanza.Escape(r.version))
	b.WriteString("</version></query>")
	_ = q.Result([]byte(b.String()))
}
