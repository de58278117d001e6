package stanza

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/jid"
)

const (
	fwd    = `<forwarded xmlns='urn:xmpp:forward:0'>`
	chat   = `<message xmlns='jabber:client' from='a@x/r' to='b@x' type='chat' id='1'><body>hi</body></message>`
	wrap   = `<message from='x' to='ev.x' id='w'>`
	unwrap = `</forwarded></message>`
)

// accepted are frames that hold a stanza, with what is in them; Raw is compared where
// the case gives it.
var accepted = []struct {
	name, frame string
	want        Envelope
}{
	{"plain message", `<message from='A@X/R' to="b@x" type='chat' id='i&amp;1'><body>a &lt;b&gt; &#x1F642;</body></message>`, Envelope{Outer: Stanza{
		Kind: Message, From: "a@x/R", To: "b@x", Type: "chat", ID: "i&1", Body: "a <b> 🙂", HasBody: true,
		Raw: `<message xmlns='jabber:client' from='A@X/R' to="b@x" type='chat' id='i&amp;1'><body>a &lt;b&gt; &#x1F642;</body></message>`}}},
	{"empty presence", `<presence/>`, Envelope{Outer: Stanza{Kind: Presence, Raw: `<presence xmlns='jabber:client'/>`}}},
	{"declared namespace of the component", `<message from='a@x' xmlns='jabber:component:accept' to='b@x'><body/></message>`, Envelope{Outer: Stanza{
		Kind: Message, From: "a@x", To: "b@x", HasBody: true,
		Raw: `<message from='a@x' xmlns='jabber:client' to='b@x'><body/></message>`}}},
	{"declared jabber:client", `<message xmlns='jabber:client' id='1'/>`, Envelope{Outer: Stanza{
		Kind: Message, ID: "1", Raw: `<message xmlns='jabber:client' id='1'/>`}}},
	{"prefix of the stream", `<message id='1'><stream:features/></message>`, Envelope{Outer: Stanza{
		Kind: Message, ID: "1", Raw: `<message xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1'><stream:features/></message>`}}},
	{"prefix of the stream declared again", `<message xmlns:stream='urn:s'><stream:x/></message>`, Envelope{Outer: Stanza{
		Kind: Message, Raw: `<message xmlns='jabber:client' xmlns:stream='urn:s'><stream:x/></message>`}}},
	{"body in pieces", "<message><body>C14 a<b>inner<i/></b>c<![CDATA[ <&\r\n]]>&#13;\r</body></message>", Envelope{Outer: Stanza{
		Kind: Message, Body: "C14 ac <&\n\r\n", HasBody: true}}},
	{"blank body", "<message><body> \t\r\n</body></message>", Envelope{Outer: Stanza{Kind: Message, HasBody: true}}},
	{"blanks between markup are no part of a body", "<message><body> <b/>\n<![CDATA[x]]>\t<i/> </body></message>", Envelope{Outer: Stanza{
		Kind: Message, Body: "x", HasBody: true}}},
	{"blanks beside other text", "<message><body> a <b/> c\n</body></message>", Envelope{Outer: Stanza{Kind: Message, Body: " a  c\n", HasBody: true}}},
	{"blanks that are written as references or CDATA", "<message><body>&#32;<b/><![CDATA[ ]]></body></message>", Envelope{Outer: Stanza{Kind: Message, Body: "  ", HasBody: true}}},
	{"first body, whatever its namespace", `<message><x:body xmlns:x='urn:x'>one</x:body><body>two</body></message>`, Envelope{Outer: Stanza{
		Kind: Message, Body: "one", HasBody: true}}},
	{"body is not a grandchild", `<message><html><body>no</body></html></message>`, Envelope{Outer: Stanza{Kind: Message}}},
	{"line ends of attributes", "<message id='a\r\nb\tc\rd'/>", Envelope{Outer: Stanza{Kind: Message, ID: "a\nb\tc\nd"}}},
	{"quotes in quotes", `<message id='"' type="'"/>`, Envelope{Outer: Stanza{Kind: Message, ID: `"`, Type: "'"}}},
	{"attributes of namespaces are not the stanza's", `<message xmlns:x='urn:x' x:id='no' id='yes'/>`, Envelope{Outer: Stanza{Kind: Message, ID: "yes"}}},
	{"a fallback for all", "<message><body>x</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reactions:0'/><reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>x</reaction></reactions></message>",
		Envelope{Outer: Stanza{Kind: Message, Body: "x", HasBody: true, Flags: HasFallback | HasReaction}}},
	{"a fallback for the body", "<message><body>x</body><fallback xmlns='urn:xmpp:fallback:0'><subject/><body/></fallback><retract xmlns='urn:xmpp:message-retract:1' id='1'/></message>",
		Envelope{Outer: Stanza{Kind: Message, Body: "x", HasBody: true, Flags: HasFallback | HasRetraction}}},
	{"what a reply quotes is a part of the body", "<message><body>&gt; x\ny</body><fallback xmlns='urn:xmpp:fallback:0'><body start='0' end='4'/></fallback></message>",
		Envelope{Outer: Stanza{Kind: Message, Body: "> x\ny", HasBody: true}}},
	{"a fallback for the subject", "<message><fallback xmlns='urn:xmpp:fallback:0'><subject/></fallback></message>", Envelope{Outer: Stanza{Kind: Message}}},
	{"a fallback deeper is none of the stanza's", "<message><x xmlns='urn:x'><fallback xmlns='urn:xmpp:fallback:0'/></x></message>", Envelope{Outer: Stanza{Kind: Message}}},
	{"a correction", "<message id='2'><body>x</body><replace xmlns='urn:xmpp:message-correct:0' id='1&amp;'/><replace xmlns='urn:xmpp:message-correct:0' id='3'/></message>",
		Envelope{Outer: Stanza{Kind: Message, ID: "2", Body: "x", HasBody: true, Replaces: "1&"}}},
	{"OTR", `<message><body>?OTRv23?</body></message>`, Envelope{Outer: Stanza{Kind: Message, Body: "?OTRv23?", HasBody: true, Flags: HasEncrypted}}},
	{"delay", `<presence><delay xmlns='urn:xmpp:delay' from='X' stamp='2026-11-21T23:41:51.5+02:00'/><delay xmlns='urn:xmpp:delay' from='y' stamp='2020-11-21T23:41:51Z'/></presence>`, Envelope{Outer: Stanza{
		Kind: Presence, Flags: HasDelay, DelayFrom: "x", DelayStamp: time.Date(2026, 11, 21, 21, 41, 51, 5e8, time.UTC)}}},
	{"delay malformed", `<presence><delay xmlns='urn:xmpp:delay' stamp='20261121T23:41:51'/></presence>`, Envelope{Outer: Stanza{Kind: Presence, Flags: HasDelay}}},
	{"delay of a day that does not exist", `<presence><delay xmlns='urn:xmpp:delay' stamp='2026-02-30T23:41:51Z'/></presence>`, Envelope{Outer: Stanza{Kind: Presence, Flags: HasDelay}}},
	{"stanza ids", `<message><stanza-id xmlns='urn:xmpp:sid:0' id='0'/><stanza-id xmlns='urn:xmpp:sid:0' by='A@x' id='1'/><stanza-id xmlns='urn:xmpp:sid:0' by='r&#64;m' id='2'/><stanza-id xmlns='urn:xmpp:sid:0' by='c@x' id='3'/></message>`, Envelope{Outer: Stanza{
		Kind: Message, StanzaIDBy: [2]jid.JID{"a@x", "r@m"}}}},
	{"forwarded message", wrap + fwd + chat + unwrap, Envelope{Forward: ForwardedOne,
		Outer: Stanza{Kind: Message, From: "x", To: "ev.x", ID: "w", Flags: HasForwarded},
		Inner: Stanza{Kind: Message, From: "a@x/r", To: "b@x", Type: "chat", ID: "1", Body: "hi", HasBody: true, Raw: chat}}},
	{"forwarded with delay and whitespace", wrap + fwd + "\n <delay xmlns='urn:xmpp:delay' stamp='2026-11-21T23:41:51Z'/>&#32;<![CDATA[\t]]>" + chat + "\n" + unwrap, Envelope{Forward: ForwardedOne,
		Outer: Stanza{Kind: Message, From: "x", To: "ev.x", ID: "w", Flags: HasForwarded},
		Inner: Stanza{Kind: Message, From: "a@x/r", To: "b@x", Type: "chat", ID: "1", Body: "hi", HasBody: true, Raw: chat}}},
	{"forwarded inherits its declarations", `<message xmlns:p='urn:p&#97;' xmlns:q='urn:q'><f:forwarded xmlns:f='urn:xmpp:forward:0' xmlns='jabber:client'><presence p:a=''><stream:x/><q:x xmlns:q='urn:own'/></presence></f:forwarded></message>`, Envelope{Forward: ForwardedOne,
		Outer: Stanza{Kind: Message, Flags: HasForwarded},
		Inner: Stanza{Kind: Presence, Raw: `<presence xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:p='urn:p&#97;' p:a=''><stream:x/><q:x xmlns:q='urn:own'/></presence>`}}},
	{"forwarded in jabber:server", wrap + fwd + `<message id='&#49;' xmlns='jabber:server' type='chat'><subject/></message>` + unwrap, Envelope{Forward: ForwardedOne,
		Outer: Stanza{Kind: Message, From: "x", To: "ev.x", ID: "w", Flags: HasForwarded},
		Inner: Stanza{Kind: Message, ID: "1", Type: "chat", Flags: HasSubject, Raw: `<message id='&#49;' xmlns='jabber:client' type='chat'><subject/></message>`}}},
	{"one level only", wrap + fwd + `<message xmlns='jabber:client' id='evil'>` + fwd + chat + unwrap + unwrap, Envelope{Forward: ForwardedOne,
		Outer: Stanza{Kind: Message, From: "x", To: "ev.x", ID: "w", Flags: HasForwarded},
		Inner: Stanza{Kind: Message, ID: "evil", Flags: HasForwarded}}},
	{"carbon", wrap + fwd + `<message xmlns='jabber:client'><received xmlns='urn:xmpp:carbons:2'>` + fwd + chat + `</forwarded></received></message>` + unwrap, Envelope{Forward: ForwardedOne,
		Outer: Stanza{Kind: Message, From: "x", To: "ev.x", ID: "w", Flags: HasForwarded},
		Inner: Stanza{Kind: Message, Flags: HasCarbon}}},
	{"two bodies", wrap + `<body>outer</body>` + fwd + chat + unwrap, Envelope{Forward: ForwardedOne,
		Outer: Stanza{Kind: Message, From: "x", To: "ev.x", ID: "w", Flags: HasForwarded, Body: "outer", HasBody: true},
		Inner: Stanza{Kind: Message, From: "a@x/r", To: "b@x", Type: "chat", ID: "1", Body: "hi", HasBody: true, Raw: chat}}},
	{"forwarded iq", wrap + fwd + `<iq xmlns='jabber:client' type='get' id='1'/>` + unwrap, other},
	{"forwarded nothing", wrap + fwd + unwrap, other},
	{"forwarded delay alone", wrap + fwd + `<delay xmlns='urn:xmpp:delay'/>` + unwrap, other},
	{"forwarded two stanzas", wrap + fwd + chat + chat + unwrap, other},
	{"forwarded stanza and stranger", wrap + fwd + chat + `<x/>` + unwrap, other},
	{"forwarded two delays", wrap + fwd + `<delay xmlns='urn:xmpp:delay'/>` + chat + `<delay xmlns='urn:xmpp:delay'/>` + unwrap, other},
	{"forwarded text", wrap + fwd + chat + `x` + unwrap, other},
	{"forwarded reference that is no whitespace", wrap + fwd + chat + `&#x78;` + unwrap, other},
	{"forwarded CDATA", wrap + fwd + `<![CDATA[&#32;]]>` + chat + unwrap, other},
	{"forwarded twice", wrap + fwd + chat + `</forwarded>` + fwd + chat + unwrap, other},
	{"forwarded in another namespace", wrap + fwd + `<message xmlns='urn:x'/>` + unwrap, other},
	{"forwarded in the namespace of the component", wrap + fwd + `<message xmlns='jabber:component:accept'/>` + unwrap, other},
	{"forwarded inherits the wrong namespace", wrap + fwd + `<message/>` + unwrap, other},
	{"forwarded with a prefix", wrap + fwd + `<c:message xmlns:c='jabber:client'/>` + unwrap, other},
	{"no XEP-0297", wrap + `<forwarded xmlns='urn:x'>` + chat + unwrap, Envelope{Outer: Stanza{Kind: Message, From: "x", To: "ev.x", ID: "w"}}},
	{"presence forwards nothing", `<presence>` + fwd + chat + `</forwarded></presence>`, Envelope{Forward: ForwardedOther,
		Outer: Stanza{Kind: Presence, Flags: HasForwarded}}},
	{"forwarded is a child", `<message><x>` + fwd + chat + `</forwarded></x></message>`, Envelope{Outer: Stanza{Kind: Message}}},
	{"privilege", `<message from='x'><privilege xmlns='urn:xmpp:privilege:2'><perm type='both' access='roster'/><perm access='iq'><namespace type='both' ns='urn:xmpp:ping'/></perm><perm xmlns='urn:x' access='no'/></privilege><privilege xmlns='urn:xmpp:privilege:1'><perm access='no'/></privilege></message>`, Envelope{
		Outer: Stanza{Kind: Message, From: "x"}, Privilege: &Privileges{2, []Permission{{"roster", "both"}, {"iq", ""}}}}},
	{"privilege 1", `<message><p:privilege xmlns:p='urn:xmpp:privilege:1'><p:perm type='managed_entity' access='pres&#101;nce'/><x><p:perm/></x></p:privilege></message>`, Envelope{
		Outer: Stanza{Kind: Message}, Privilege: &Privileges{1, []Permission{{"presence", "managed_entity"}}}}},
	{"privilege is a child of a message", wrap + fwd + `<message xmlns='jabber:client'><privilege xmlns='urn:xmpp:privilege:2'/></message>` + unwrap, Envelope{Forward: ForwardedOne,
		Outer: Stanza{Kind: Message, From: "x", To: "ev.x", ID: "w", Flags: HasForwarded}, Inner: Stanza{Kind: Message}}},
	{"presence grants no privilege", `<presence><privilege xmlns='urn:xmpp:privilege:2'><perm access='no'/></privilege></presence>`, Envelope{Outer: Stanza{Kind: Presence}}},
	{"names beyond ASCII", `<message żółw='1'><名前 x·='' xmlns:é='urn:e' é:é=''/></message>`, Envelope{Outer: Stanza{Kind: Message}}},
	{"all of Unicode", "<message id='\u00ad\ufffd\U0010ffff'><body>\ud7ff\ue000\ufdd0\U0001fffe</body></message>", Envelope{Outer: Stanza{
		Kind: Message, ID: "\u00ad\ufffd\U0010ffff", Body: "\ud7ff\ue000\ufdd0\U0001fffe", HasBody: true}}},
	{"brackets", "<message id=']]>'><body>]] ]>]]&gt;<![CDATA[]]]]><![CDATA[>]]></body></message>", Envelope{Outer: Stanza{
		Kind: Message, ID: "]]>", Body: "]] ]>]]>]]>", HasBody: true}}},
	{"spaces in tags", "<message\tid\n=\r'1' ><body\n>x</body\r\n></message >", Envelope{Outer: Stanza{Kind: Message, ID: "1", Body: "x", HasBody: true}}},
	{"xml prefix declared", `<message xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='en'/>`, Envelope{Outer: Stanza{Kind: Message}}},
	{"default namespace undeclared", `<message><x xmlns=''><subject/></x><subject xmlns=''/></message>`, Envelope{Outer: Stanza{Kind: Message}}},
	{"equal attributes of two namespaces", `<message xmlns:a='urn:a' xmlns:b='urn:b'><x a:n='' b:n='' n=''/></message>`, Envelope{Outer: Stanza{Kind: Message}}},
	{"equal attributes of xml and another", `<message xmlns:b='urn:b' xml:lang='' b:lang=''/>`, Envelope{Outer: Stanza{Kind: Message}}},
}

var other = Envelope{Forward: ForwardedOther, Outer: Stanza{Kind: Message, From: "x", To: "ev.x", ID: "w", Flags: HasForwarded}}

// refused are frames that are no stanza, and why.
var refused = []struct {
	name, frame string
	defect      Defect
	offset      int
}{
	{"empty", ``, Malformed, 0},
	{"text", `x`, Malformed, 0},
	{"space in front", ` <message/>`, Malformed, 0},
	{"text behind", `<message/>x`, Malformed, 10},
	{"two elements", `<message/><message/>`, Malformed, 10},
	{"lone bracket", `<`, Malformed, 1},
	{"end tag", `</message>`, TagMismatch, 0},
	{"cut in the name", `<message`, Malformed, 8},
	{"cut in the tag", `<message id`, Malformed, 11},
	{"cut in the value", `<message id='`, Malformed, 13},
	{"cut behind the slash", `<message/`, Malformed, 9},
	{"cut in the text", `<message>abc`, Malformed, 12},
	{"cut in the end tag", `<message></mess`, Malformed, 15},
	{"cut behind the name of the end tag", `<message></message `, Malformed, 19},
	{"cut in CDATA", `<message><![CDATA[ ]]`, Malformed, 21},
	{"end tag of another", `<message></presence>`, TagMismatch, 9},
	{"end tag longer", `<message></messages>`, TagMismatch, 9},
	{"end tag by another prefix", `<message xmlns:a='u' xmlns:b='u'><a:x></b:x></message>`, TagMismatch, 38},
	{"space before the name", `< message/>`, BadName, 1},
	{"name begins with a digit", `<message><1/></message>`, BadName, 10},
	{"name with a slash", `<message/ >`, Malformed, 8},
	{"name with two colons", `<message xmlns:a='u'><a:b:c/></message>`, BadName, 25},
	{"name without a local part", `<message xmlns:a='u'><a:/></message>`, BadName, 23},
	{"name without a prefix", `<message><:a/></message>`, BadName, 10},
	{"name with a multiplication sign", `<message><a×/></message>`, BadName, 11},
	{"attribute name begins with a digit", `<message 1=''/>`, BadName, 9},
	{"attribute without a name", `<message =''/>`, BadName, 9},
	{"cut behind the equals sign", `<message id=`, Malformed, 12},
	{"cut in an attribute of a namespace", `<message xml:`, BadName, 12},
	{"attribute without a value", `<message id/>`, BadAttribute, 11},
	{"attribute without quotes", `<message id=1/>`, BadAttribute, 12},
	{"attributes not apart", `<message id='1'to='2'/>`, BadAttribute, 15},
	{"bracket in a value", `<message id='<'/>`, BadAttribute, 13},
	{"attribute twice", `<message id='1' id='1'/>`, DuplicateAttr, 16},
	{"attribute twice by namespace", `<message xmlns:a='u' xmlns:b='&#117;' a:x='' b:x=''/>`, DuplicateAttr, 45},
	{"attribute twice by the namespace of the stream", `<message xmlns:b='http://etherx.jabber.org/streams' stream:x='' b:x=''/>`, DuplicateAttr, 64},
	{"prefix declared twice", `<message xmlns:a='u' xmlns:a='v'/>`, DuplicateAttr, 21},
	{"unbound prefix", `<message><a:b/></message>`, BadNamespace, 10},
	{"unbound prefix of an attribute", `<message a:b=''/>`, BadNamespace, 9},
	{"prefix out of scope", `<message><x xmlns:a='u'/><a:b/></message>`, BadNamespace, 26},
	{"prefix undeclared", `<message xmlns:a=''/>`, BadNamespace, 9},
	{"prefix xmlns of an element", `<message><xmlns:a/></message>`, BadNamespace, 10},
	{"prefix xmlns declared", `<message xmlns:xmlns='u'/>`, BadNamespace, 9},
	{"prefix xml bound to another", `<message xmlns:xml='u'/>`, BadNamespace, 9},
	{"another prefix bound to xml", `<message xmlns:a='http://www.w3.org/XML/1998/namespace'/>`, BadNamespace, 9},
	{"default namespace xml", `<message xmlns='http://www.w3.org/XML/1998/namespace'/>`, BadNamespace, 9},
	{"namespace of xmlns", `<message xmlns:a='http://www.w3.org/2000/xmlns/'/>`, BadNamespace, 9},
	{"unknown entity", `<message>&nbsp;</message>`, BadReference, 9},
	{"entity in upper case", `<message>&AMP;</message>`, BadReference, 9},
	{"lone ampersand", `<message>a & b</message>`, BadReference, 11},
	{"reference without an end", `<message>&lt </message>`, BadReference, 9},
	{"reference to NUL", `<message>&#0;</message>`, BadReference, 9},
	{"reference to a surrogate", `<message>&#xD800;</message>`, BadReference, 9},
	{"reference beyond Unicode", `<message>&#x110000;</message>`, BadReference, 9},
	{"reference that would overflow", `<message>&#4294967361;</message>`, BadReference, 9},
	{"reference without digits", `<message id='&#;'/>`, BadReference, 13},
	{"reference with a capital X", `<message id='&#X41;'/>`, BadReference, 13},
	{"control character", "<message>\x01</message>", BadCharacter, 9},
	{"control character in a value", "<message id='\x1f'/>", BadCharacter, 13},
	{"control character in CDATA", "<message><![CDATA[\x00]]></message>", BadCharacter, 18},
	{"U+FFFE", "<message>\ufffe</message>", BadCharacter, 9},
	{"U+FFFF in a value", "<message id='\uffff'/>", BadCharacter, 13},
	{"U+FFFF in CDATA", "<message><![CDATA[\uffff]]></message>", BadCharacter, 18},
	{"no UTF-8 in text", "<message>\xff</message>", BadEncoding, 9},
	{"surrogate in UTF-8", "<message>\xed\xa0\x80</message>", BadEncoding, 9},
	{"no UTF-8 in a name", "<message\xc3/>", BadEncoding, 8},
	{"no UTF-8 behind", "<message/>\xff", BadEncoding, 10},
	{"end of CDATA in text", `<message>]]></message>`, Malformed, 9},
	{"comment", `<message><!-- --></message>`, RestrictedXML, 9},
	{"processing instruction", `<message><?x?></message>`, RestrictedXML, 9},
	{"declaration", `<message><!DOCTYPE x></message>`, RestrictedXML, 9},
	{"XML declaration", `<?xml version='1.0'?><message/>`, RestrictedXML, 0},
	{"CDATA alone", `<![CDATA[x]]>`, Malformed, 0},
	{"too deep", strings.Repeat("<message>", 9) + strings.Repeat("</message>", 9), NestedTooDeep, 72},
	{"too deep and empty", strings.Repeat("<message>", 8) + "<x/>" + strings.Repeat("</message>", 8), NestedTooDeep, 72},
	{"too large", `<message>` + strings.Repeat("x", 2048) + `</message>`, Oversized, 2048},
	{"iq", `<iq type='get' id='1'/>`, NotStanza, 1},
	{"other namespace", `<message xmlns='urn:x'/>`, NotStanza, 1},
	{"prefix", `<c:message xmlns:c='jabber:client'/>`, NotStanza, 1},
}

func TestDecode(t *testing.T) {
	d := NewDecoder(tight)
	for _, c := range accepted {
		t.Run(c.name, func(t *testing.T) {
			var env Envelope
			if err := d.Decode([]byte(c.frame), &env); err != nil {
				t.Fatal(err)
			}
			got := env
			for _, p := range []struct{ got, want *Stanza }{{&got.Outer, &c.want.Outer}, {&got.Inner, &c.want.Inner}} {
				if p.want.Raw == "" {
					p.got.Raw = ""
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			agree(t, d, []byte(c.frame), tight)
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	d := NewDecoder(tight)
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			var env Envelope
			err := d.Decode([]byte(c.frame), &env)
			var refused *StanzaError
			if !errors.As(err, &refused) || refused.Defect != c.defect || refused.Offset != c.offset {
				t.Errorf("got %v, want %v at %d", err, c.defect, c.offset)
			}
			agree(t, d, []byte(c.frame), tight)
		})
	}
}

// The many elements and attributes of a hostile stanza must not cost more than
// their number.
func TestDecodeBounds(t *testing.T) {
	many := func(n int, format string) string {
		var sb strings.Builder
		for i := range n {
			fmt.Fprintf(&sb, format, i)
		}
		return sb.String()
	}
	for _, c := range []struct {
		name, frame string
		ok          bool
	}{
		{"attributes", `<message` + many(maxAttrs, " a%d=''") + `/>`, true},
		{"too many attributes", `<message` + many(maxAttrs+1, " a%d=''") + `/>`, false},
		{"prefixes", `<message` + many(maxPrefixes-1, " xmlns:a%d='u'") + `/>`, true},
		{"too many prefixes", `<message` + many(200, " xmlns:a%d='u'") + `><x` + many(56, " xmlns:b%d='u'") + `/></message>`, false},
		{"prefixes one after the other", `<message>` + many(1000, "<x xmlns:a%d='u'/>") + `</message>`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var env Envelope
			err := NewDecoder(Limits{}).Decode([]byte(c.frame), &env)
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			var refused *StanzaError
			if err != nil && (!errors.As(err, &refused) || refused.Defect != TooManyMarkups) {
				t.Error(err)
			}
		})
	}
}

// Every frame that a real server sent means to the decoder what it means to
// encoding/xml.
func TestCaptures(t *testing.T) {
	d := NewDecoder(Limits{})
	stanzas, forwarded, privileges := 0, 0, 0
	for name, stream := range captures(t) {
		for _, frame := range frames(t, stream) {
			switch frame.Kind {
			case MessageFrame, PresenceFrame:
				var env Envelope
				if err := d.Decode(frame.Bytes, &env); err != nil {
					t.Fatalf("%s: %v\n%s", name, err, frame.Bytes)
				}
				stanzas++
				if env.Forward == ForwardedOne {
					forwarded++
					if !bytes.Contains(frame.Bytes, []byte(env.Inner.Raw)) {
						t.Errorf("%s: Raw is not what came: %s", name, env.Inner.Raw)
					}
				}
				if env.Privilege != nil {
					privileges++
				}
				agree(t, d, frame.Bytes, Limits{})
			case OtherFrame:
				// An iq or an error of the stream: well-formed, but no stanza of ours.
				var refused *StanzaError
				var env Envelope
				if err := d.Decode(frame.Bytes, &env); !errors.As(err, &refused) || refused.Defect != NotStanza {
					t.Errorf("%s: %v\n%s", name, err, frame.Bytes)
				}
			}
		}
	}
	// As another XML parser counts them in the captures.
	if stanzas != 514 || forwarded != 333 || privileges != 9 {
		t.Errorf("%d stanzas, %d forwarded, %d privileges", stanzas, forwarded, privileges)
	}
	for _, frame := range corpus(t) {
		agree(t, d, frame, Limits{})
	}
}

// A frame that was cut because it was too large still tells where it came from.
func TestDecodeSalvages(t *testing.T) {
	for _, c := range []struct {
		name, frame string
		want        Stanza
	}{
		{"cut in the body", `<message from='A@x/r' to='ev.x' type='chat' id='i&#49;'><body>xxx`, Stanza{Kind: Message, From: "a@x/r", To: "ev.x", Type: "chat", ID: "i1"}},
		{"no UTF-8 behind the start tag", "<presence from='a@x'>\xff</presence>", Stanza{Kind: Presence, From: "a@x"}},
		{"cut in the start tag", `<message from='a@x'`, Stanza{}},
		{"iq", `<iq from='a@x' id='1'/>`, Stanza{From: "a@x", ID: "1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var env Envelope
			if err := NewDecoder(Limits{}).Decode([]byte(c.frame), &env); err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(Envelope{Outer: c.want}, env); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// All strings of a stanza are parts of one buffer.
func TestDecodeAllocations(t *testing.T) {
	d := NewDecoder(Limits{})
	var env Envelope
	for i, frame := range corpus(t) {
		if n := testing.AllocsPerRun(20, func() {
			if err := d.Decode(frame, &env); err != nil {
				t.Fatal(err)
			}
		}); n > 1 {
			t.Errorf("stanza %d: %v allocations, want 1", i, n)
		}
	}
	wrapped := []byte(wrap + fwd + chat + unwrap)
	if n := testing.AllocsPerRun(20, func() { _ = d.Decode(wrapped, &env) }); n > 1 {
		t.Errorf("forwarded: %v allocations, want 1", n)
	}
	raw, body := unsafe.StringData(env.Outer.Raw), unsafe.StringData(env.Inner.Body)
	if at := uintptr(unsafe.Pointer(body)) - uintptr(unsafe.Pointer(raw)); at >= uintptr(len(env.Outer.Raw)) {
		t.Error("the body is not a part of Raw")
	}
}

// A giant must not leave its memory behind.
func TestDecodeReleases(t *testing.T) {
	d := NewDecoder(Limits{})
	var env Envelope
	frame := []byte(`<message><body>` + strings.Repeat("&amp;", 300_000) + `</body></message>`)
	if err := d.Decode(frame, &env); err != nil {
		t.Fatal(err)
	}
	if len(env.Outer.Body) != 300_000 {
		t.Errorf("body of %d bytes", len(env.Outer.Body))
	}
	frame = []byte(`<message><privilege xmlns='urn:xmpp:privilege:2'>` + strings.Repeat("<perm/>", 20_000) + `</privilege></message>`)
	if err := d.Decode(frame, &env); err != nil || len(env.Privilege.Permissions) != 20_000 {
		t.Fatal(err)
	}
	if cap(d.bodies) > maxScratch || cap(d.perms) > maxScratch/64 || d.src != nil {
		t.Errorf("the decoder keeps %d bytes, %d permissions", cap(d.bodies), cap(d.perms))
	}
}

// The classes of characters in names are those of XML 1.0, fifth edition.
func TestNameCharacters(t *testing.T) {
	// All that the ranges begin and end with, and all where they lie close together.
	runes := []rune{0xD7FF, 0xE000, 0xF8FF, 0xF900, 0xFDCF, 0xFDD0, 0xFDEF, 0xFDF0, 0xFFFD, 0xFFFE, 0xFFFF,
		0x10000, 0xEFFFF, 0xF0000, 0x10FFFF}
	for r := rune(0x80); r < 0x3100; r++ {
		runes = append(runes, r)
	}
	for _, r := range runes {
		name := string(r)
		if start := startTagShape.MatchString("<" + name + ">"); start != isNameStart(r) {
			t.Fatalf("%U begins a name: %v", r, !start)
		}
		if part := startTagShape.MatchString("<x" + name + ">"); part != (isNameStart(r) || isNameRune(r)) {
			t.Fatalf("%U continues a name: %v", r, !part)
		}
	}
}

func TestParseStamp(t *testing.T) {
	for _, c := range []struct{ stamp, want string }{
		{"2026-11-21T23:41:51Z", "2026-11-21T23:41:51Z"},
		{"2026-11-21T23:41:51.123456Z", "2026-11-21T23:41:51.123456Z"},
		{"2026-11-21T00:41:51-01:30", "2026-11-21T02:11:51Z"},
		{"2026-11-21T23:41:51", ""},
		{"2026-11-21T23:41:51,5Z", ""},
		{"2026-11-21T23:41:51.Z", ""},
		{"2026-11-21T3:41:51Z", ""},
		{"2026-11-21 23:41:51Z", ""},
		{"2026-11-21t23:41:51Z", ""},
		{"2026-1x-21T23:41:51Z", ""},
		{"2026-11-21T23:41:60Z", ""},
		{"2026-11-21T24:00:00Z", ""},
		{"2026-11-21T23:41:51+0200", ""},
		{"2026-11-21T23:41:51Zx", ""},
		{"20261121T23:41:51", ""},
		{"", ""},
	} {
		got := ""
		if at := parseStamp([]byte(c.stamp)); !at.IsZero() {
			got = at.Format(time.RFC3339Nano)
		}
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.stamp, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Defect(0).String(), "unknown"},
		{NotStanza.String(), "not a message or presence"},
		{Defect(99).String(), "unknown"},
		{NotForwarded.String() + ForwardedOne.String() + ForwardedOther.String() + ForwardState(9).String(), "noneoneotherunknown"},
		{OtherFrame.String() + MessageFrame.String() + PresenceFrame.String() + EndFrame.String(), "othermessagepresenceend"},
		{NoFault.String() + " " + TooLarge.String() + " " + TooDeep.String(), "none too large too deep"},
		{Message.String() + Presence.String() + Kind(0).String(), "messagepresenceunknown"},
		{refuse(BadName, 7).Error(), "stanza: invalid name at byte 7"},
		{(&SyntaxError{StrayText, 9}).Error(), "stanza: broken stream: text between stanzas at byte 9"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
