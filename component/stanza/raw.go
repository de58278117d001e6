package stanza

import (
	"strings"

	"eventpusher/internal/jid"
)

// A stanza's Raw is the bytes of its element but for two edits in its start tag:
// declarations that it lacks are put in behind the name, and the default namespace,
// where it declares another one, becomes jabber:client.

const (
	clientDecl   = " xmlns='" + clientURI + "'"
	clientQuoted = "'" + clientURI + "'"
	streamDecl   = " xmlns:" + streamPrefix + "='" + streamURI + "'"
)

// edits are the changes to one start tag.
type edits struct {
	at     int // where decls go
	client bool
	decls  []byte // other declarations
	quoted span   // the value that clientQuoted replaces; empty for none
}

// editsOf returns the edits that make f stand alone, given the declarations of
// prefixes that it inherits.
func (d *Decoder) editsOf(f *fields, decls []byte) edits {
	e := edits{at: f.nameEnd, decls: decls}
	if f.xmlns == (span{}) {
		e.client = true
	} else if string(d.src[f.xmlns.from+1:f.xmlns.to-1]) != clientURI {
		e.quoted = f.xmlns
	}
	return e
}

// none reports whether nothing changes.
func (e *edits) none() bool { return !e.client && len(e.decls) == 0 && e.quoted == (span{}) }

// inserted returns how many bytes are put in behind the name.
func (e *edits) inserted() int {
	n := len(e.decls)
	if e.client {
		n += len(clientDecl)
	}
	return n
}

// replaced returns by how many bytes the replacement is longer than what it replaces.
func (e *edits) replaced() int {
	if e.quoted == (span{}) {
		return 0
	}
	return len(clientQuoted) - (e.quoted.to - e.quoted.from)
}

// grown returns by how much the edits lengthen the element.
func (e *edits) grown() int { return e.inserted() + e.replaced() }

// moved returns where the byte at i has gone to.
func (e *edits) moved(i int) int {
	n := i
	if i >= e.at {
		n += e.inserted()
	}
	if e.quoted.to > 0 && i >= e.quoted.to {
		n += e.replaced()
	}
	return n
}

// write writes the element that covers whole.
func (e *edits) write(sb *strings.Builder, src []byte, whole span) {
	sb.Write(src[whole.from:e.at])
	if e.client {
		sb.WriteString(clientDecl)
	}
	sb.Write(e.decls)
	rest := e.at
	if e.quoted.to > 0 {
		sb.Write(src[rest:e.quoted.from])
		sb.WriteString(clientQuoted)
		rest = e.quoted.to
	}
	sb.Write(src[rest:whole.to])
}

// inheritedDecls notes, at the end of the forwarded stanza, the declarations of the
// prefixes that it uses and does not declare.
func (d *Decoder) inheritedDecls() {
	for i := range d.ns[:d.forward.bindings] {
		b := &d.ns[i]
		if b.used&usedByInner == 0 {
			continue
		}
		if i < streamBindings {
			d.decls = append(d.decls, streamDecl...)
			continue
		}
		d.decls = append(d.decls, " xmlns:"...)
		d.decls = append(d.decls, d.bytes(b.prefix)...)
		d.decls = append(d.decls, '=')
		d.decls = append(d.decls, d.bytes(b.quoted)...)
	}
}

// finish builds the envelope of a frame that is sound. All strings are parts of one:
// Outer.Raw, then Inner.Raw if it is not a part of that, then unescaped text.
func (d *Decoder) finish(env *Envelope) {
	env.Forward = d.forward.state(d.outer.kind)
	var outerDecls []byte
	if d.ns[0].used != 0 {
		outerDecls = []byte(streamDecl)
	}
	outer := d.editsOf(&d.outer, outerDecls)
	var inner edits
	outerLen := len(d.src) + outer.grown()
	innerLen := 0
	if env.Forward == ForwardedOne {
		inner = d.editsOf(&d.inner, d.decls)
		if !inner.none() {
			innerLen = d.inner.whole.to - d.inner.whole.from + inner.grown()
		}
	}
	var sb strings.Builder
	sb.Grow(outerLen + innerLen + len(d.values) + len(d.bodies))
	outer.write(&sb, d.src, d.outer.whole)
	if innerLen > 0 {
		inner.write(&sb, d.src, d.inner.whole)
	}
	sb.Write(d.values)
	sb.Write(d.bodies)

	s := sliced{all: sb.String(), frame: outer, values: outerLen + innerLen}
	s.bodies = s.values + len(d.values)
	s.stanza(&env.Outer, &d.outer)
	env.Outer.Raw = s.all[:outerLen]
	if env.Forward == ForwardedOne {
		s.stanza(&env.Inner, &d.inner)
		if innerLen > 0 {
			env.Inner.Raw = s.all[outerLen : outerLen+innerLen]
		} else {
			env.Inner.Raw = s.of(text{span: d.inner.whole})
		}
	}
	if d.privilege > 0 {
		env.Privilege = &Privileges{Version: d.privilege}
		for _, p := range d.perms {
			env.Privilege.Permissions = append(env.Privilege.Permissions, Permission{s.of(p.access), s.of(p.typ)})
		}
	}
	d.fillFeed(env, s.of)
}

// sliced finds texts in the string that finish builds.
type sliced struct {
	all            string
	frame          edits
	values, bodies int // where those parts begin
}

func (s *sliced) of(t text) string {
	switch t.place {
	case inValues:
		return s.all[s.values+t.from : s.values+t.to]
	case inBodies:
		return s.all[s.bodies+t.from : s.bodies+t.to]
	}
	// An absent or empty text may stand where an edit begins.
	if t.from == t.to {
		return ""
	}
	from := s.frame.moved(t.from)
	return s.all[from : from+t.to-t.from]
}

func (s *sliced) stanza(st *Stanza, f *fields) {
	st.Kind = f.kind
	st.From = jid.Prepare(s.of(f.from))
	st.To = jid.Prepare(s.of(f.to))
	st.Type = s.of(f.typ)
	st.ID = s.of(f.id)
	st.Body = s.of(f.body)
	st.HasBody = f.hasBody
	st.Flags = f.flags
	st.Replaces = s.of(f.replaces)
	if strings.HasPrefix(st.Body, "?OTR") {
		st.Flags |= HasEncrypted
	}
	st.DelayFrom = jid.Prepare(s.of(f.delayFrom))
	st.DelayStamp = f.delayStamp
	for i := range f.by {
		st.StanzaIDBy[i] = jid.Prepare(s.of(f.by[i]))
	}
}

// salvage fills in what is known of a frame that is refused.
func (d *Decoder) salvage(env *Envelope) {
	f, st := &d.outer, &env.Outer
	st.Kind = f.kind
	st.From = jid.Prepare(string(d.textBytes(f.from)))
	st.To = jid.Prepare(string(d.textBytes(f.to)))
	st.Type = string(d.textBytes(f.typ))
	st.ID = string(d.textBytes(f.id))
	d.fillFeed(env, func(t text) string { return string(d.textBytes(t)) })
}

// bytes returns a part of the frame.
func (d *Decoder) bytes(s span) []byte { return d.src[s.from:s.to] }

func (d *Decoder) textBytes(t text) []byte {
	switch t.place {
	case inValues:
		return d.values[t.from:t.to]
	case inBodies:
		return d.bodies[t.from:t.to]
	case inURIs:
		return d.uris[t.from:t.to]
	}
	return d.bytes(t.span)
}

// unescape resolves the references of an attribute value into scratch.
func (d *Decoder) unescape(scratch *[]byte, place textPlace, value span) text {
	from := len(*scratch)
	*scratch = appendText(*scratch, d.bytes(value))
	return text{span: span{from, len(*scratch)}, place: place, present: true}
}
