package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"eventpusher/internal/jid"
)

// The oracle is what a frame means according to encoding/xml. The decoder must accept
// and refuse the same and yield the same fields.
//
// encoding/xml is laxer than XML and its namespaces in some points; in these the
// oracle judges by itself, from the raw tokens:
//
//   - prefixes without a declaration, reserved prefixes and namespaces, undeclared
//     prefixes (xmlns:p='');
//   - attributes that occur twice, by name or by namespace and name;
//   - attributes that are not separated by whitespace;
//   - names with an empty or misplaced part around the colon (":a", "a:", "a:1");
//   - references to surrogates, which it turns into U+FFFD;
//   - comments, processing instructions and declarations, which RFC 6120 forbids;
//   - depth, number of attributes and number of prefixes in scope.
//
// In one point it is stricter: its names are those of the fourth edition of XML 1.0.
// The oracle cannot judge a frame refused for a name that is one in the fifth.

// errNoVerdict says that the oracle cannot judge.
var errNoVerdict = errors.New("oracle: no verdict")

// verdict is what the oracle thinks of a frame.
type verdict struct {
	env Envelope // without Raw
	// started: the first start tag is sound, so that its attributes are known.
	started bool
	err     error
	root    *node
	payload *node
}

// node is an element.
type node struct {
	name       xml.Name
	attr       []xml.Attr // namespace declarations left out
	children   []any      // *node or string
	start, end int64      // in the frame
	prefixed   bool
	own        string // its own default namespace declaration, if declared
	declared   bool
	body       string // the character data directly inside, as MongooseIM reads a body
}

const ncNameClass = `[A-Z_a-z\xC0-\xD6\xD8-\xF6\xF8-\x{2FF}\x{370}-\x{37D}\x{37F}-\x{1FFF}\x{200C}-\x{200D}` +
	`\x{2070}-\x{218F}\x{2C00}-\x{2FEF}\x{3001}-\x{D7FF}\x{F900}-\x{FDCF}\x{FDF0}-\x{FFFD}\x{10000}-\x{EFFFF}]` +
	`[A-Z_a-z\xC0-\xD6\xD8-\xF6\xF8-\x{37D}\x{37F}-\x{1FFF}\x{200C}-\x{200D}\x{203F}\x{2040}` +
	`\x{2070}-\x{218F}\x{2C00}-\x{2FEF}\x{3001}-\x{D7FF}\x{F900}-\x{FDCF}\x{FDF0}-\x{FFFD}\x{10000}-\x{EFFFF}\-.0-9\xB7]*`

const qNameClass = `(?:` + ncNameClass + `:)?` + ncNameClass

var (
	startTagShape = regexp.MustCompile(`^<(` + qNameClass + `)` +
		`(?:[ \t\r\n]+` + qNameClass + `[ \t\r\n]*=[ \t\r\n]*(?:"[^<"]*"|'[^<']*'))*[ \t\r\n]*/?>$`)
	charReference = regexp.MustCompile(`&#(x?)([0-9A-Fa-f]+);`)
	stampShape    = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)
)

const (
	xmlURI   = "http://www.w3.org/XML/1998/namespace"
	xmlnsURI = "http://www.w3.org/2000/xmlns/"
)

// judge returns what the oracle thinks of a frame.
func judge(frame []byte, l Limits) (v verdict) {
	l = l.withDefaults()
	if v.started, v.err = strict(frame, l); v.err == nil {
		v.root, v.err = tree(streamHeader, frame)
	}
	if v.err == nil && len(frame) > l.Size {
		v.err = errors.New("oracle: size")
	}
	if v.started {
		v.addresses(frame)
		v.feed(frame)
	}
	if v.err == nil && (v.env.Outer.Kind == 0 || !isContentURI(v.root.name.Space)) {
		v.err = errors.New("oracle: no stanza")
	}
	if v.err == nil {
		v.extract()
	}
	return v
}

// strict finds what encoding/xml lets pass.
func strict(frame []byte, l Limits) (started bool, err error) {
	if len(frame) == 0 || frame[0] != '<' {
		return false, errors.New("oracle: no element")
	}
	d := xml.NewDecoder(io.MultiReader(strings.NewReader(streamHeader), bytes.NewReader(frame)))
	if _, err := d.RawToken(); err != nil {
		return false, err
	}
	scopes := []map[string]string{{"xml": xmlURI, "stream": streamURI}}
	for {
		from := d.InputOffset()
		tok, err := d.RawToken()
		if err != nil {
			if err == io.EOF {
				return started, errors.New("oracle: truncated")
			}
			if strings.Contains(err.Error(), "invalid XML name") && !isASCII(frame) {
				err = errNoVerdict
			}
			return started, err
		}
		raw := frame[from-int64(len(streamHeader)) : d.InputOffset()-int64(len(streamHeader))]
		switch tok := tok.(type) {
		case xml.StartElement:
			scope, err := strictStart(raw, tok, scopes[len(scopes)-1])
			if err != nil {
				return started, err
			}
			scopes = append(scopes, scope)
			if len(scopes)-1 > l.Depth {
				return started, errors.New("oracle: depth")
			}
			started = true
		case xml.EndElement:
			if len(scopes) == 1 {
				return started, errors.New("oracle: end tag without start tag")
			}
			scopes = scopes[:len(scopes)-1]
			if len(scopes) > 1 {
				break
			}
			if !utf8.Valid(frame) {
				return started, errors.New("oracle: UTF-8")
			}
			if rest := int64(len(streamHeader)+len(frame)) - d.InputOffset(); rest > 0 {
				return started, errors.New("oracle: bytes behind the element")
			}
			return started, nil
		case xml.CharData:
			if !bytes.HasPrefix(raw, []byte("<!")) && hasSurrogate(raw) || len(scopes) == 1 {
				return started, errors.New("oracle: text")
			}
		default:
			return started, errors.New("oracle: restricted XML")
		}
	}
}

func strictStart(raw []byte, tok xml.StartElement, outer map[string]string) (map[string]string, error) {
	if !utf8.Valid(raw) || !startTagShape.Match(raw) || hasSurrogate(raw) {
		return nil, errors.New("oracle: start tag")
	}
	if len(tok.Attr) > maxAttrs {
		return nil, errors.New("oracle: attributes")
	}
	scope := make(map[string]string, len(outer)+1)
	for p, uri := range outer {
		scope[p] = uri
	}
	for _, a := range tok.Attr {
		isDefault := a.Name == xml.Name{Local: "xmlns"}
		if !isDefault && a.Name.Space != "xmlns" {
			continue
		}
		isXML := !isDefault && a.Name.Local == "xml"
		if a.Value == xmlnsURI || (a.Value == xmlURI) != isXML || !isDefault && (a.Value == "" || a.Name.Local == "xmlns") {
			return nil, errors.New("oracle: declaration")
		}
		if !isDefault {
			scope[a.Name.Local] = a.Value
		}
	}
	if tok.Name.Space != "" && scope[tok.Name.Space] == "" {
		return nil, errors.New("oracle: prefix of the element")
	}
	seen := map[xml.Name]bool{}
	for _, a := range tok.Attr {
		name := a.Name
		if name.Space == "xmlns" {
			name.Space = xmlnsURI
		} else if name.Space != "" {
			if name.Space = scope[name.Space]; name.Space == "" {
				return nil, errors.New("oracle: prefix of an attribute")
			}
		}
		if seen[name] {
			return nil, errors.New("oracle: attribute twice")
		}
		seen[name] = true
	}
	return scope, nil
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func hasSurrogate(raw []byte) bool {
	for _, m := range charReference.FindAllSubmatch(raw, -1) {
		base := 10
		if len(m[1]) > 0 {
			base = 16
		}
		n, err := strconv.ParseUint(string(m[2]), base, 64)
		if err == nil && 0xD800 <= n && n <= 0xDFFF {
			return true
		}
	}
	return false
}

// tree reads one element with encoding/xml.
func tree(header string, frame []byte) (*node, error) {
	d := xml.NewDecoder(io.MultiReader(strings.NewReader(header), bytes.NewReader(frame)))
	if header != "" {
		if _, err := d.Token(); err != nil {
			return nil, err
		}
	}
	var open []*node
	for {
		from := d.InputOffset() - int64(len(header))
		tok, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			n := &node{name: tok.Name, start: from}
			raw := frame[from : d.InputOffset()-int64(len(header))]
			n.prefixed = strings.Contains(string(startTagShape.FindSubmatch(raw)[1]), ":")
			for _, a := range tok.Attr {
				switch {
				case a.Name == xml.Name{Local: "xmlns"}:
					n.own, n.declared = a.Value, true
				case a.Name.Space != "xmlns":
					n.attr = append(n.attr, a)
				}
			}
			if len(open) > 0 {
				parent := open[len(open)-1]
				parent.children = append(parent.children, n)
			}
			open = append(open, n)
		case xml.EndElement:
			n := open[len(open)-1]
			n.end = d.InputOffset() - int64(len(header))
			open = open[:len(open)-1]
			if len(open) == 0 {
				return n, nil
			}
		case xml.CharData:
			parent := open[len(open)-1]
			if raw := frame[from : d.InputOffset()-int64(len(header))]; strings.Trim(string(raw), " \t\r\n") != "" {
				parent.body += string(tok)
			}
			last := len(parent.children) - 1
			if last >= 0 {
				if s, ok := parent.children[last].(string); ok {
					parent.children[last] = s + string(tok)
					continue
				}
			}
			parent.children = append(parent.children, string(tok))
		}
	}
}

func (n *node) elements() (all []*node) {
	for _, c := range n.children {
		if e, ok := c.(*node); ok {
			all = append(all, e)
		}
	}
	return all
}

// text is the character data directly inside n.
func (n *node) text() string {
	var sb strings.Builder
	for _, c := range n.children {
		if s, ok := c.(string); ok {
			sb.WriteString(s)
		}
	}
	return sb.String()
}

func (n *node) attribute(name string) string {
	for _, a := range n.attr {
		if a.Name == (xml.Name{Local: name}) {
			return a.Value
		}
	}
	return ""
}

func (n *node) has(name string) bool {
	for _, a := range n.attr {
		if a.Name == (xml.Name{Local: name}) {
			return true
		}
	}
	return false
}

func isContentURI(uri string) bool {
	return uri == "jabber:component:accept" || uri == "jabber:client" || uri == "jabber:server"
}

// addresses reads the first start tag alone, since what follows may be anything.
func (v *verdict) addresses(frame []byte) {
	d := xml.NewDecoder(io.MultiReader(strings.NewReader(streamHeader), bytes.NewReader(frame)))
	_, _ = d.Token()
	tok, _ := d.RawToken()
	start := tok.(xml.StartElement)
	n := &node{attr: start.Attr, prefixed: start.Name.Space != "", name: start.Name}
	n.address(&v.env.Outer)
}

func (n *node) address(st *Stanza) {
	if !n.prefixed {
		st.Kind = map[string]Kind{"message": Message, "presence": Presence}[n.name.Local]
	}
	st.From = jid.Prepare(n.attribute("from"))
	st.To = jid.Prepare(n.attribute("to"))
	st.Type = n.attribute("type")
	st.ID = n.attribute("id")
}

// feed reads up to the start tag of the first child, which is all that the feed needs
// to be sound in a frame that may be damaged further on.
func (v *verdict) feed(frame []byte) {
	if v.env.Outer.Kind != Message {
		return
	}
	d := xml.NewDecoder(io.MultiReader(strings.NewReader(streamHeader), bytes.NewReader(frame)))
	_, _ = d.Token()
	scope := map[string]string{"xml": xmlURI, "stream": streamURI}
	for depth := 1; ; {
		from := d.InputOffset()
		tok, err := d.RawToken()
		if err != nil {
			return
		}
		raw := frame[from-int64(len(streamHeader)) : d.InputOffset()-int64(len(streamHeader))]
		switch tok := tok.(type) {
		case xml.StartElement:
			inner, err := strictStart(raw, tok, scope)
			if err != nil {
				return
			}
			for _, a := range tok.Attr {
				if (a.Name == xml.Name{Local: "xmlns"}) {
					inner[""] = a.Value
				}
			}
			if scope = inner; depth == 1 {
				depth++
				continue
			}
			n := &node{attr: tok.Attr, name: tok.Name}
			if n.name.Space = scope[tok.Name.Space]; n.name.Space == "urn:eventpusher:feed:1" {
				v.env.Feed = n.feed()
			}
			return
		case xml.CharData:
			if !utf8.Valid(raw) || !bytes.HasPrefix(raw, []byte("<!")) && hasSurrogate(raw) {
				return
			}
		default:
			return
		}
	}
}

var (
	feedNameShape = regexp.MustCompile(`^[^\s\pZ\p{Cc}]{1,128}$`)
	feedTimeShape = regexp.MustCompile(`^[0-9]{1,12}\.[0-9]{3}$`)
	feedKinds     = strings.Fields("message-sent message-received message-offline message-unacked message-failed " +
		"online presence offline session-start session-end hibernate resumed account-removed room-message room-join room-part room-missed " +
		"snapshot-start snapshot snapshot-end")
)

// number is a number of the feed, 0 for what is none.
func (n *node) number(name string) uint64 {
	if s := n.attribute(name); len(s) <= 19 && s != "" && strings.Trim(s, "0123456789") == "" {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return uint64(i)
		}
	}
	return 0
}

// accounts are the bare JIDs of users in a list, in order; none of a list of more than 1000.
func (n *node) accounts(name string) []jid.JID {
	list := strings.Fields(n.attribute(name))
	seen := make(map[jid.JID]bool)
	for _, entry := range list {
		j := jid.Prepare(entry)
		if local, domain, ok := strings.Cut(string(j), "@"); ok && local != "" && domain != "" && !strings.Contains(string(j), "/") {
			seen[j] = true
		}
	}
	if len(list) > 1000 {
		return nil
	}
	return slices.Sorted(maps.Keys(seen))
}

func (n *node) feed() *Feed {
	f := &Feed{Element: FeedOther}
	source, epoch := n.attribute("source"), n.attribute("epoch")
	if !feedNameShape.MatchString(source) || !feedNameShape.MatchString(epoch) {
		return f
	}
	switch n.name.Local {
	case "event":
		if f.Seq = n.number("seq"); f.Seq == 0 {
			return &Feed{Element: FeedOther}
		}
		if n.has("token") && !feedNameShape.MatchString(n.attribute("token")) {
			return &Feed{Element: FeedOther}
		}
		f.Element, f.Kind, f.Token = FeedEvent, UnknownReport, n.attribute("token")
		for i, kind := range feedKinds {
			if kind == n.attribute("kind") {
				f.Kind = ReportKind(i + 1)
			}
		}
		f.User = jid.Prepare(n.attribute("user"))
		if s := n.attribute("t"); feedTimeShape.MatchString(s) {
			millis, _ := strconv.ParseInt(strings.Replace(s, ".", "", 1), 10, 64)
			f.At = time.UnixMilli(millis).UTC()
		}
		if strings.HasPrefix(n.attribute("kind"), "snapshot") && f.Kind != UnknownReport {
			f.ID = n.attribute("id")
			if count := n.number("count"); count < 1<<31 {
				f.Count = int(count)
			}
		}
		f.Unreached = f.Kind == MessageSent && n.attribute("reached") == "false"
		switch f.Kind {
		case MessageSent, MessageReceived, MessageOffline, MessageUnacked:
			f.Stranger = n.attribute("contact") == "false"
		}
		if f.Kind == RoomMissed {
			f.Members = n.accounts("members")
		}
	case "lost":
		if f.From, f.To = n.number("from"), n.number("to"); f.From == 0 || f.To < f.From {
			return &Feed{Element: FeedOther}
		}
		if n.has("token") && !feedNameShape.MatchString(n.attribute("token")) {
			return &Feed{Element: FeedOther}
		}
		f.Element, f.Token = FeedLost, n.attribute("token")
	case "hello":
		h := &f.Hello
		h.First, h.Next, h.PrevLast = n.number("first"), n.number("next"), n.number("prev-last")
		h.PrevEpoch, h.Server = n.attribute("prev-epoch"), n.attribute("server")
		if h.First == 0 || h.Next < h.First || n.has("prev-epoch") && !feedNameShape.MatchString(h.PrevEpoch) {
			return &Feed{Element: FeedOther}
		}
		h.Clean = n.attribute("clean") == "true" || n.attribute("clean") == "1"
		h.Token = n.attribute("token") == "true" || n.attribute("token") == "1"
		for _, host := range strings.Fields(n.attribute("hosts")) {
			h.Hosts = append(h.Hosts, jid.Prepare(host))
		}
		f.Element = FeedHello
	default:
		return f
	}
	f.Source, f.Epoch = source, epoch
	return f
}

func (v *verdict) extract() {
	v.root.stanza(&v.env.Outer)
	var forwarded []*node
	for _, c := range v.root.elements() {
		switch c.name {
		case xml.Name{Space: "urn:xmpp:forward:0", Local: "forwarded"}:
			forwarded = append(forwarded, c)
		case xml.Name{Space: "urn:xmpp:privilege:1", Local: "privilege"}, xml.Name{Space: "urn:xmpp:privilege:2", Local: "privilege"}:
			if v.env.Privilege == nil && v.env.Outer.Kind == Message {
				v.env.Privilege = c.privileges()
			}
		}
	}
	if len(forwarded) == 0 {
		return
	}
	v.env.Forward = ForwardedOther
	if len(forwarded) > 1 || v.env.Outer.Kind != Message || strings.Trim(forwarded[0].text(), " \t\r\n") != "" {
		return
	}
	var payloads []*node
	delays := 0
	for _, c := range forwarded[0].elements() {
		if c.name == (xml.Name{Space: "urn:xmpp:delay", Local: "delay"}) {
			delays++
		} else {
			payloads = append(payloads, c)
		}
	}
	if delays > 1 || len(payloads) != 1 {
		return
	}
	p := payloads[0]
	if p.prefixed || p.name.Space != "jabber:client" && p.name.Space != "jabber:server" ||
		p.name.Local != "message" && p.name.Local != "presence" {
		return
	}
	v.env.Forward = ForwardedOne
	v.payload = p
	p.stanza(&v.env.Inner)
}

func (n *node) privileges() *Privileges {
	p := &Privileges{Version: int(n.name.Space[len(n.name.Space)-1] - '0')}
	for _, c := range n.elements() {
		if c.name.Local == "perm" && (c.name.Space == "urn:xmpp:privilege:1" || c.name.Space == "urn:xmpp:privilege:2") {
			p.Permissions = append(p.Permissions, Permission{c.attribute("access"), c.attribute("type")})
		}
	}
	return p
}

// meanings are the children that set flags; an empty name stands for any.
var meanings = []struct {
	flag   Flags
	spaces string
	names  string
}{
	{HasDelay, "urn:xmpp:delay", "delay"},
	{HasForwarded, "urn:xmpp:forward:0", "forwarded"},
	{HasCarbon, "urn:xmpp:carbons:2", "sent received"},
	{HasMAMResult, "urn:xmpp:mam:0 urn:xmpp:mam:1 urn:xmpp:mam:2", "result"},
	{HasPubsub, "http://jabber.org/protocol/pubsub#event", "event"},
	{HasMUC, "http://jabber.org/protocol/muc", "x"},
	{HasMUCUser, "http://jabber.org/protocol/muc#user", "x"},
	{HasSubject, "jabber:component:accept jabber:client jabber:server", "subject"},
	{HasError, "jabber:component:accept jabber:client jabber:server", "error"},
	{HasState, "http://jabber.org/protocol/chatstates", "active composing paused inactive gone"},
	{HasReceipt, "urn:xmpp:receipts", "received"},
	{HasMarker, "urn:xmpp:chat-markers:0", "received displayed acknowledged"},
	{HasCall, "urn:xmpp:jingle-message:0", ""},
	{HasEncrypted, "urn:xmpp:eme:0", "encryption"},
	{HasEncrypted, "eu.siacs.conversations.axolotl urn:xmpp:omemo:1 urn:xmpp:omemo:2", "encrypted"},
	{HasEncrypted, "urn:xmpp:openpgp:0", "openpgp"},
	{HasEncrypted, "jabber:x:encrypted", "x"},
	{HasNoStore, "urn:xmpp:hints", "no-store"},
	{HasStore, "urn:xmpp:hints", "store"},
	{HasReaction, "urn:xmpp:reactions:0", "reactions"},
	{HasRetraction, "urn:xmpp:message-retract:0 urn:xmpp:message-retract:1", "retract"},
}

func contains(list, word string) bool {
	for _, w := range strings.Fields(list) {
		if w == word {
			return true
		}
	}
	return false
}

// ofWholeBody says that a fallback element stands for all of the body.
func (n *node) ofWholeBody() bool {
	for _, c := range n.elements() {
		if c.name == (xml.Name{Space: "urn:xmpp:fallback:0", Local: "body"}) && !c.has("start") && !c.has("end") {
			return true
		}
	}
	return len(n.elements()) == 0
}

func (n *node) stanza(st *Stanza) {
	n.address(st)
	ids, replaced := 0, false
	for _, c := range n.elements() {
		if c.name == (xml.Name{Space: "urn:xmpp:fallback:0", Local: "fallback"}) && c.ofWholeBody() {
			st.Flags |= HasFallback
		}
		if c.name == (xml.Name{Space: "urn:xmpp:message-correct:0", Local: "replace"}) && c.has("id") && !replaced {
			st.Replaces, replaced = c.attribute("id"), true
		}
		if c.name.Local == "body" && !st.HasBody {
			st.HasBody = true
			st.Body = c.body
			if strings.HasPrefix(st.Body, "?OTR") {
				st.Flags |= HasEncrypted
			}
		}
		if c.name == (xml.Name{Space: "urn:xmpp:delay", Local: "delay"}) && !st.Flags.Has(HasDelay) {
			st.DelayFrom = jid.Prepare(c.attribute("from"))
			if stamp := c.attribute("stamp"); stampShape.MatchString(stamp) {
				if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
					st.DelayStamp = t.UTC()
				}
			}
		}
		if c.name == (xml.Name{Space: "urn:xmpp:sid:0", Local: "stanza-id"}) && c.has("by") && ids < 2 {
			st.StanzaIDBy[ids] = jid.Prepare(c.attribute("by"))
			ids++
		}
		for _, m := range meanings {
			if contains(m.spaces, c.name.Space) && (m.names == "" || contains(m.names, c.name.Local)) {
				st.Flags |= m.flag
			}
		}
	}
}
