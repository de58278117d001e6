package stanza

import (
	"bytes"
	"encoding/xml"
	"unicode/utf8"
)

// Decoder turns frames into stanzas. It checks what it reads: a frame is accepted
// only if it is one element that is well-formed (XML 1.0), well-formed in namespaces
// (Namespaces in XML 1.0) and free of what RFC 6120 section 11.1 forbids.
//
// A Decoder is reused from frame to frame and keeps no reference to any of
// them. One goroutine at a time.
type Decoder struct {
	limits Limits
	src    []byte
	// bad is where src was cut because what follows is no UTF-8; -1 if nowhere.
	bad int

	stack []element
	ns    []binding
	attrs []attr
	start startTag

	// Text that needed unescaping: attribute values, bodies, namespace names.
	values, bodies, uris []byte

	outer, inner fields
	perms        []permission
	privilege    int // version, 0 for none
	forward      forward
	feed         feedFields
	names        map[string]string // of sources and epochs, see name
	// decls are the declarations that the forwarded stanza inherits.
	decls []byte

	inForwarded, inPrivilege, inPayload bool
	// children counts those of the outer element. If that is no message or presence,
	// firstName is the name of the first one, and firstNode its node attribute.
	children  int
	firstName xml.Name
	firstNode string
	// atPayload: the start tag being read may be the forwarded stanza's.
	atPayload bool
	// capture is whose body is being read, at captureDepth; nil for none.
	capture      *fields
	captureDepth int
	// fallback is the stanza whose fallback element is being read, at fallbackDepth; nil for
	// none. fallbackOf is what it stands for so far.
	fallback      *fields
	fallbackDepth int
	fallbackOf    uint8
}

// element is an open element.
type element struct {
	name     span
	bindings int   // in scope outside it
	space    space // default namespace inside it
}

// NewDecoder returns a Decoder. Of l it applies both limits, in case the frames do not
// come from a Framer.
func NewDecoder(l Limits) *Decoder {
	return &Decoder{
		limits: l.withDefaults(),
		attrs:  make([]attr, 0, maxAttrs),
		names:  make(map[string]string),
		ns:     []binding{{space: streamSpace}},
	}
}

// Decode reads one frame into env, which it overwrites, together with the Feed that env
// has from before, and which does not share the frame's memory.
//
// The frame stands in a component stream: its default namespace is
// jabber:component:accept, the prefix stream is bound to
// http://etherx.jabber.org/streams. A stanza in jabber:client or jabber:server is
// taken as well.
//
// The error is a *StanzaError. Env is then unusable but for the addresses, type and
// id of Outer, which are filled in if the start tag itself was sound, and Kind, if
// its name was that of a stanza. Feed is set as well if the start tag of the first child
// was sound. NotStanza is reported only when nothing else is wrong; DecodeIQ tells an IQ
// from anything else then.
func (d *Decoder) Decode(frame []byte, env *Envelope) error {
	env.reset()
	err := d.read(frame)
	if err == nil && !d.isStanza() {
		err = refuse(NotStanza, 1)
	}
	if err != nil {
		d.salvage(env)
	} else {
		d.finish(env)
	}
	d.release()
	return err
}

// read reads the frame and checks it.
func (d *Decoder) read(frame []byte) error {
	d.reset(frame)
	if !utf8.Valid(frame) {
		d.bad = validPrefix(frame)
		d.src = frame[:d.bad]
	}
	err := d.document()
	if err == nil && len(frame) > d.limits.Size {
		err = refuse(Oversized, d.limits.Size)
	}
	return err
}

func (d *Decoder) isStanza() bool { return d.outer.kind != 0 && d.outer.space.isContent() }

func (d *Decoder) reset(frame []byte) {
	d.src, d.bad = frame, -1
	d.stack = d.stack[:0]
	d.ns = d.ns[:streamBindings]
	d.ns[0].used = 0
	d.values, d.bodies, d.uris, d.decls = d.values[:0], d.bodies[:0], d.uris[:0], d.decls[:0]
	d.outer, d.inner = fields{}, fields{}
	d.perms, d.privilege = d.perms[:0], 0
	d.forward = forward{}
	d.feed.element, d.children = NoFeed, 0
	d.inForwarded, d.inPrivilege, d.inPayload, d.atPayload = false, false, false, false
	d.capture, d.fallback = nil, nil
}

// maxScratch is how much memory for unescaped text outlives a stanza.
const maxScratch = 256 << 10

// release drops the frame and what a giant has left behind.
func (d *Decoder) release() {
	d.src = nil
	for _, scratch := range []*[]byte{&d.values, &d.bodies, &d.uris, &d.decls} {
		if cap(*scratch) > maxScratch {
			*scratch = nil
		}
	}
	if cap(d.perms) > maxScratch/64 {
		d.perms = nil
	}
}

// validPrefix returns the length of the longest prefix that is UTF-8.
func validPrefix(b []byte) int {
	i := 0
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	return i
}

func refuse(d Defect, offset int) error {
	return &StanzaError{Defect: d, Offset: offset}
}

// truncated is the error for a frame that ends too early, be it that its rest is no
// UTF-8.
func (d *Decoder) truncated() error {
	if d.bad >= 0 {
		return refuse(BadEncoding, d.bad)
	}
	return refuse(Malformed, len(d.src))
}

// document reads the one element that the frame holds.
func (d *Decoder) document() error {
	i, err := d.element()
	switch {
	case err != nil:
		return err
	case d.bad >= 0:
		return refuse(BadEncoding, d.bad)
	case i < len(d.src):
		return refuse(Malformed, i)
	}
	return nil
}

// element reads the element at the beginning and returns where it ends.
func (d *Decoder) element() (int, error) {
	if len(d.src) == 0 {
		return 0, d.truncated()
	}
	if d.src[0] != '<' {
		return 0, refuse(Malformed, 0)
	}
	i, err := d.markup(0)
	for err == nil && len(d.stack) > 0 {
		var end int
		var plain bool
		if end, plain, err = d.text(i); err != nil {
			break
		}
		if end > i {
			d.charData(span{i, end}, plain, false)
		}
		i, err = d.markup(end)
	}
	return i, err
}

// markup reads what begins with the '<' at i and returns the position behind it.
func (d *Decoder) markup(i int) (int, error) {
	if i+1 == len(d.src) {
		return i, d.truncated()
	}
	switch d.src[i+1] {
	case '/':
		return d.endTag(i)
	case '?':
		return i, refuse(RestrictedXML, i)
	case '!':
		return d.section(i)
	}
	return d.startTag(i)
}

func (d *Decoder) startTag(i int) (int, error) {
	if len(d.stack) >= d.limits.Depth {
		return i, refuse(NestedTooDeep, i)
	}
	e := element{bindings: len(d.ns), space: acceptSpace}
	if n := len(d.stack); n > 0 {
		e.space = d.stack[n-1].space
	}
	d.expectPayload()
	empty, err := d.readStart(i, e.space)
	if err != nil {
		return i, err
	}
	e.name, e.space = d.start.name, d.start.space
	d.stack = append(d.stack, e)
	d.open()
	d.atPayload = false
	if empty {
		d.close(d.start.end)
	}
	return d.start.end, nil
}

func (d *Decoder) endTag(i int) (int, error) {
	if len(d.stack) == 0 {
		return i, refuse(TagMismatch, i)
	}
	b := d.src
	name := d.bytes(d.stack[len(d.stack)-1].name)
	end := i + 2 + len(name)
	if end >= len(b) {
		return i, d.truncated()
	}
	if string(b[i+2:end]) != string(name) {
		return i, refuse(TagMismatch, i)
	}
	for end < len(b) && isSpace(b[end]) {
		end++
	}
	if end == len(b) {
		return i, d.truncated()
	}
	if b[end] != '>' {
		return i, refuse(TagMismatch, i)
	}
	d.close(end + 1)
	return end + 1, nil
}

// section reads a CDATA section; everything else that begins with "<!" is refused.
func (d *Decoder) section(i int) (int, error) {
	const opening = "<![CDATA["
	if !bytes.HasPrefix(d.src[i:], []byte(opening)) {
		return i, refuse(RestrictedXML, i)
	}
	if len(d.stack) == 0 {
		return i, refuse(Malformed, i)
	}
	i += len(opening)
	end, plain, err := d.cdata(i)
	if err != nil {
		return i, err
	}
	if end > i {
		d.charData(span{i, end}, plain, true)
	}
	return end + len("]]>"), nil
}

// close ends the innermost open element, whose last byte is before end.
func (d *Decoder) close(end int) {
	d.closed(len(d.stack), end)
	last := len(d.stack) - 1
	d.ns = d.ns[:d.stack[last].bindings]
	d.stack = d.stack[:last]
}
