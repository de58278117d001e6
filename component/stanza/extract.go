package stanza

import "time"

// textPlace is where the bytes of a text are.
type textPlace uint8

const (
	inFrame  textPlace = iota
	inValues           // Decoder.values
	inBodies           // Decoder.bodies
	inURIs             // Decoder.uris
)

// text is a piece of text whose references are resolved.
type text struct {
	span
	place   textPlace
	present bool
}

// fields is what is collected of one stanza while it is read.
type fields struct {
	kind              Kind
	space             space
	from, to, typ, id text
	body, replaces    text
	hasBody           bool
	flags             Flags
	delayFrom         text
	delayStamp        time.Time
	by                [2]text
	// nameEnd is where a declaration can be put in, xmlns the quoted value of the
	// default namespace's own declaration, if there is one.
	whole   span
	nameEnd int
	xmlns   span
}

// permission is a perm element of a privilege advertisement.
type permission struct{ access, typ text }

// forward counts what decides about the ForwardState.
type forward struct {
	elements, payloads, delays int
	sound                      bool // the first payload is a stanza
	text                       bool // something between its children
	bindings                   int  // in scope outside the payload
}

func (f *forward) state(outer Kind) ForwardState {
	switch {
	case f.elements == 0:
		return NotForwarded
	case outer == Message && f.elements == 1 && f.payloads == 1 && f.sound && f.delays <= 1 && !f.text:
		return ForwardedOne
	}
	return ForwardedOther
}

// Depths at which the decoder looks for something.
const (
	outerDepth   = 1
	childDepth   = 2 // children of the outer stanza, forwarded and privilege among them
	payloadDepth = 3 // children of forwarded and privilege
	innerDepth   = 4 // children of the forwarded stanza
)

// expectPayload notes, before a start tag is read, whether it may be that of the
// forwarded stanza, so that the prefixes which that inherits are known.
func (d *Decoder) expectPayload() {
	if len(d.stack)+1 != payloadDepth || !d.inForwarded || d.forward.payloads > 0 {
		return
	}
	d.atPayload = true
	d.forward.bindings = len(d.ns)
	for i := range d.ns {
		d.ns[i].used &^= usedByInner
	}
}

// open looks at the element whose start tag was just read.
func (d *Decoder) open() {
	local := d.bytes(d.start.local)
	if d.fallback != nil && len(d.stack) == d.fallbackDepth+1 {
		d.openFallback(local)
	}
	switch len(d.stack) {
	case outerDepth:
		d.root(&d.outer, local)
	case childDepth:
		d.child(&d.outer, local)
		d.children++
		first := d.children == 1
		if first && d.outer.kind == 0 {
			d.firstChild(local)
		}
		switch s := d.start.own; {
		case s == feedSpace:
			if first && d.outer.kind == Message {
				d.openFeed(local)
			}
		case s == forwardSpace && string(local) == "forwarded":
			d.forward.elements++
			d.inForwarded = d.forward.elements == 1
		case s == privilege1Space && string(local) == "privilege":
			d.openPrivilege(1)
		case s == privilege2Space && string(local) == "privilege":
			d.openPrivilege(2)
		}
	case payloadDepth:
		switch {
		case d.inForwarded:
			d.payload(local)
		case d.inPrivilege && string(local) == "perm" &&
			(d.start.own == privilege1Space || d.start.own == privilege2Space):
			d.perms = append(d.perms, permission{d.attr("access"), d.attr("type")})
		}
	case innerDepth:
		if d.inPayload {
			d.child(&d.inner, local)
		}
	}
}

// What a fallback element stands for, as bits; zero is the whole message.
const (
	ofBody  uint8 = 1 << iota // all of the body
	ofOther                   // the subject, or a part of the body
)

// openFallback looks at a child of a fallback element: a body with a start or an end says
// that only a part of the body is one, such as what a reply quotes (XEP-0461).
func (d *Decoder) openFallback(local []byte) {
	if d.start.own == fallbackSpace && string(local) == "body" && !d.attr("start").present && !d.attr("end").present {
		d.fallbackOf |= ofBody
	} else {
		d.fallbackOf |= ofOther
	}
}

func (d *Decoder) openPrivilege(version int) {
	if d.privilege == 0 && d.outer.kind == Message {
		d.privilege = version
		d.inPrivilege = true
	}
}

// payload looks at a child of forwarded.
func (d *Decoder) payload(local []byte) {
	if d.start.own == delaySpace && string(local) == "delay" {
		d.forward.delays++
		return
	}
	d.forward.payloads++
	if d.forward.payloads > 1 || d.start.own != clientSpace && d.start.own != serverSpace {
		return
	}
	d.root(&d.inner, local)
	d.inPayload = d.inner.kind != 0
	d.forward.sound = d.inPayload
}

// root takes the attributes of a stanza. RFC 6120 section 4.8.5 allows no prefix on
// its name.
func (d *Decoder) root(f *fields, local []byte) {
	if !d.start.prefixed {
		switch string(local) {
		case "message":
			f.kind = Message
		case "presence":
			f.kind = Presence
		}
	}
	f.space = d.start.own
	f.whole.from = d.start.from
	f.nameEnd = d.start.name.to
	f.xmlns = d.start.xmlns
	for i := range d.attrs {
		a := &d.attrs[i]
		if a.prefixed() {
			continue
		}
		switch string(d.bytes(a.name)) {
		case "from":
			f.from = d.attrText(a)
		case "to":
			f.to = d.attrText(a)
		case "type":
			f.typ = d.attrText(a)
		case "id":
			f.id = d.attrText(a)
		}
	}
}

// child looks at a child of the stanza f.
func (d *Decoder) child(f *fields, local []byte) {
	if !f.hasBody && string(local) == "body" {
		f.hasBody = true
		d.capture, d.captureDepth = f, len(d.stack)
	}
	switch {
	case d.start.own == delaySpace && string(local) == "delay" && !f.flags.Has(HasDelay):
		f.delayFrom = d.attr("from")
		f.delayStamp = parseStamp(d.textBytes(d.attr("stamp")))
	case d.start.own == correctionSpace && string(local) == "replace" && !f.replaces.present:
		f.replaces = d.attr("id")
	case d.start.own == fallbackSpace && string(local) == "fallback":
		d.fallback, d.fallbackDepth, d.fallbackOf = f, len(d.stack), 0
	case d.start.own == stanzaIDSpace && string(local) == "stanza-id" && !f.by[1].present:
		if by := d.attr("by"); !f.by[0].present {
			f.by[0] = by
		} else {
			f.by[1] = by
		}
	}
	f.flags |= childFlag(d.start.own, local)
}

// charData takes checked character data.
func (d *Decoder) charData(s span, plain, cdata bool) {
	depth := len(d.stack)
	if d.capture != nil && depth == d.captureDepth {
		d.bodyText(s, plain, cdata)
	}
	if depth == childDepth && d.inForwarded && !d.forward.text {
		d.forward.text = !d.isBlank(s, plain, cdata)
	}
}

// bodyText adds to the body being read. A body that is one plain piece, which is
// nearly every one, stays where it is.
//
// MongooseIM's parser drops text between two markups that is nothing but literal
// whitespace, so that a blank body is an empty one.
func (d *Decoder) bodyText(s span, plain, cdata bool) {
	if !cdata && isSpace(d.src[s.from]) && allSpace(d.bytes(s)) {
		return
	}
	body := &d.capture.body
	if plain && !body.present {
		*body = text{span: s, present: true}
		return
	}
	if body.place == inFrame {
		from := len(d.bodies)
		d.bodies = append(d.bodies, d.bytes(body.span)...)
		*body = text{span: span{from, len(d.bodies)}, place: inBodies, present: true}
	}
	if cdata {
		d.bodies = appendCDATA(d.bodies, d.bytes(s))
	} else {
		d.bodies = appendText(d.bodies, d.bytes(s))
	}
	body.to = len(d.bodies)
}

// isBlank reports whether character data is nothing but whitespace.
func (d *Decoder) isBlank(s span, plain, cdata bool) bool {
	b := d.bytes(s)
	if !plain && !cdata {
		b = appendText(nil, b)
	}
	return allSpace(b)
}

func allSpace(b []byte) bool {
	for _, c := range b {
		if !isSpace(c) {
			return false
		}
	}
	return true
}

// closed is called at the end of an element at that depth, before its namespaces go
// out of scope.
func (d *Decoder) closed(depth, end int) {
	if d.capture != nil && depth == d.captureDepth {
		d.capture = nil
	}
	if d.fallback != nil && depth == d.fallbackDepth {
		if d.fallbackOf != ofOther {
			d.fallback.flags |= HasFallback
		}
		d.fallback = nil
	}
	switch depth {
	case outerDepth:
		d.outer.whole.to = end
	case childDepth:
		d.inForwarded, d.inPrivilege = false, false
	case payloadDepth:
		if d.inPayload {
			d.inPayload = false
			d.inner.whole.to = end
			d.inheritedDecls()
		}
	}
}
