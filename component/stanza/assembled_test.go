package stanza

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// names, declarations and texts are what random frames are made of. Most of it is
// sound, so that many frames are accepted and much of a frame is read before it is
// refused.
var (
	someNames = strings.Fields(`message message message presence iq forwarded forwarded forwarded delay body body subject
		error x x y received sent result event active request displayed encrypted encryption openpgp stanza-id store no-store
		propose fallback replace reactions retract privilege perm a:x b:message b:forwarded stream:x xml:x xmlns:x é 1x :x x:`)
	someSpaces = strings.Fields(`jabber:client jabber:client jabber:client jabber:server jabber:component:accept urn:xmpp:forward:0
		urn:xmpp:forward:0 urn:xmpp:forward:0 urn:xmpp:delay urn:xmpp:carbons:2 urn:xmpp:mam:2 urn:xmpp:mam:0
		http://jabber.org/protocol/pubsub#event http://jabber.org/protocol/muc http://jabber.org/protocol/muc#user
		http://jabber.org/protocol/chatstates urn:xmpp:receipts urn:xmpp:chat-markers:0 urn:xmpp:jingle-message:0
		urn:xmpp:hints urn:xmpp:sid:0 urn:xmpp:privilege:1 urn:xmpp:privilege:2 urn:xmpp:eme:0 urn:xmpp:omemo:2
		urn:xmpp:fallback:0 urn:xmpp:message-correct:0 urn:xmpp:reactions:0 urn:xmpp:message-retract:1
		eu.siacs.conversations.axolotl urn:xmpp:openpgp:0 jabber:x:encrypted urn:a&amp;b urn:&#97;&amp;b
		http://www.w3.org/2000/xmlns/ http://www.w3.org/XML/1998/namespace`)
	someAttrs  = strings.Fields("from to type id by start stamp access xml:lang a:id b:id id1 stream:x")
	someValues = []string{"a@x/R", "B@X", "x", "", "chat", "2026-11-21T23:41:51Z", "2026-11-21T23:41:51.5-23:59",
		"2026-11-21T3:41:51Z", "2026-11-21T23:41:51,5Z", "2026-11-21T23:41:60Z", "2026-11-21T23:41:51+24:00",
		"i&amp;&#49;", "\r\n\t", "]]>", "managed_entity", "ż"}
	someTexts = []string{"x", " ", "\n", "\r\n", "&lt;", "&#32;", "&#xd;", "&#x1F642;", "ż", "<![CDATA[&\r]]]>", "<![CDATA[]]>", "]]",
		"?OTR", "&#xD800;", "&nbsp;", "]]>", "\x01", "\ufffe", "\xff", "<!---->", "<?x?>"}
)

// pick takes one of the words; the last ones, which are wrong, seldom.
func pick(r *rand.Rand, words []string, wrong int) string {
	if r.IntN(40) == 0 {
		return words[len(words)-1-r.IntN(wrong)]
	}
	return words[r.IntN(len(words)-wrong)]
}

// assemble writes a random element.
func assemble(r *rand.Rand, sb *strings.Builder, depth int) {
	name := pick(r, someNames, 6)
	if depth == 1 && r.IntN(10) > 0 {
		name = "message"
	}
	if depth == 2 && r.IntN(3) == 0 {
		name = "forwarded xmlns='urn:xmpp:forward:0'"
	}
	if depth == 3 && r.IntN(3) == 0 {
		name = "message xmlns='jabber:client'"
	}
	sb.WriteString("<" + name)
	space := func() string { return "='" + pick(r, someSpaces, 2) + "'" }
	if depth < 3 && r.IntN(2) == 0 {
		sb.WriteString(" xmlns:a" + space())
	}
	if depth < 3 && r.IntN(2) == 0 {
		sb.WriteString(" xmlns:b" + space())
	}
	if depth > 1 && !strings.Contains(name, "xmlns=") && r.IntN(3) > 0 {
		sb.WriteString(" xmlns" + space())
	}
	if r.IntN(60) == 0 {
		sb.WriteString(" xmlns:stream" + space())
	}
	for _, i := range r.Perm(len(someAttrs))[:r.IntN(4)] {
		sb.WriteString(" " + someAttrs[i] + `="` + someValues[r.IntN(len(someValues))] + `"`)
	}
	if r.IntN(4) == 0 {
		sb.WriteString("/>")
		return
	}
	sb.WriteString(">")
	children := 1 + r.IntN(3)
	if depth == 1 {
		children++
	} else if strings.HasPrefix(name, "forwarded xmlns") && r.IntN(2) == 0 {
		children = 1
	}
	for range children {
		if depth < 7 && r.IntN(depth+1) < 2 {
			assemble(r, sb, depth+1)
		} else if r.IntN(2) == 0 {
			sb.WriteString(pick(r, someTexts, 8))
		}
	}
	name, _, _ = strings.Cut(name, " ")
	sb.WriteString("</" + name + ">")
}

// Random frames made of what stanzas are made of mean to the decoder what they mean to
// encoding/xml. The frames are the same in every run.
func TestDecodeAssembled(t *testing.T) {
	const n = 1500
	r := rand.New(rand.NewPCG(1, 2))
	d := NewDecoder(Limits{Size: 8192, Depth: 6})
	ok, forwarded := 0, 0
	for range n {
		var sb strings.Builder
		assemble(r, &sb, 1)
		frame := []byte(sb.String())
		agree(t, d, frame, d.limits)
		var env Envelope
		if d.Decode(frame, &env) == nil {
			ok++
			if env.Forward == ForwardedOne {
				forwarded++
			}
		}
	}
	// The frames are worth something only if many are accepted and unwrapped.
	if ok < n/4 || forwarded < n/100 || ok > n*9/10 {
		t.Errorf("%d of %d accepted, %d forwarded", ok, n, forwarded)
	}
}
