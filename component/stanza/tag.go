package stanza

// Bounds that keep the work for one element linear in its length. No XMPP element
// comes near them.
const (
	maxAttrs    = 256 // attributes of one element, declarations among them
	maxPrefixes = 256 // prefixes in scope
)

// span is a part of the frame.
type span struct{ from, to int }

// attr is one attribute of the start tag being read.
type attr struct {
	name     span   // as it came, prefix and all
	local    int    // where its local part begins
	value    span   // without the quotes
	binding  int    // of the prefix
	key      uint32 // equal for equal names
	plain    bool   // the value stands for itself
	declares bool   // xmlns or xmlns:prefix
}

func (a *attr) prefixed() bool { return a.local > a.name.from }

// prefix is not for attributes that have none.
func (a *attr) prefix() span { return span{a.name.from, a.local - 1} }

func (a *attr) localName() span { return span{a.local, a.name.to} }

// startTag is what is known of the start tag being read.
type startTag struct {
	from     int // of its '<'
	name     span
	local    span
	prefixed bool
	space    space // of unprefixed names inside; of the element once resolved, see open
	own      space // of the element itself
	xmlns    span  // the quoted value of its own xmlns, if any
	end      int   // behind its '>'
	// Whether it declares namespaces, whether attributes have prefixes.
	declares, prefixedAttrs bool
}

// readStart reads the start tag at i, checks it and leaves it in d.start and d.attrs.
func (d *Decoder) readStart(i int, inherited space) (empty bool, err error) {
	b := d.src
	d.start = startTag{from: i, space: inherited}
	d.attrs = d.attrs[:0]
	var prefix span
	i++
	if end := i + letters(b, i); end > i && end < len(b) && isDelimiter(b[end]) {
		d.start.local = span{i, end}
	} else if prefix, d.start.local, d.start.prefixed, err = d.qName(i); err != nil {
		return false, err
	}
	d.start.name = span{i, d.start.local.to}
	i = d.start.local.to
	for {
		next := i
		for next < len(b) && isSpace(b[next]) {
			next++
		}
		if next == len(b) {
			return false, d.truncated()
		}
		if b[next] == '>' {
			d.start.end = next + 1
			break
		}
		if b[next] == '/' {
			if next+1 == len(b) {
				return false, d.truncated()
			}
			if b[next+1] != '>' {
				return false, refuse(Malformed, next)
			}
			d.start.end = next + 2
			empty = true
			break
		}
		if next == i {
			return false, refuse(BadAttribute, i)
		}
		if i, err = d.readAttr(next); err != nil {
			return false, err
		}
	}
	return empty, d.bindNames(prefix)
}

// readAttr reads the attribute at i and returns the position behind it.
func (d *Decoder) readAttr(i int) (int, error) {
	b := d.src
	n := len(d.attrs)
	if n >= maxAttrs {
		return i, refuse(TooManyMarkups, i)
	}
	end, localAt := i+letters(b, i), i
	quote := end + 1
	// Nearly all are a short name, '=' and a quote.
	if quote >= len(b) || b[end] != '=' || end == i {
		_, local, prefixed, err := d.qName(i)
		if err != nil {
			return i, err
		}
		localAt, end = local.from, local.to
		d.start.prefixedAttrs = d.start.prefixedAttrs || prefixed
		quote = end + 1
	}
	key := uint32(b[i])<<24 | uint32(b[end-1])<<16 | uint32(uint16(end-i))
	for j := range d.attrs {
		if d.attrs[j].key == key && string(d.bytes(d.attrs[j].name)) == string(b[i:end]) {
			return i, refuse(DuplicateAttr, i)
		}
	}
	d.attrs = d.attrs[:n+1]
	a := &d.attrs[n]
	a.name, a.local, a.key = span{i, end}, localAt, key
	a.declares = end-i >= 5 && string(b[i:i+5]) == "xmlns" && (end-i == 5 || localAt == i+6)
	d.start.declares = d.start.declares || a.declares
	var err error
	if quote >= len(b) || b[end] != '=' || b[quote] != '\'' && b[quote] != '"' {
		if quote, err = d.equals(end); err != nil {
			return quote, err
		}
	}
	a.value.from = quote + 1
	a.value.to, a.plain, err = d.value(quote)
	return a.value.to + 1, err
}

// equals reads what is between the name of an attribute, which ends at i, and its
// value, and returns where the value's quote is.
func (d *Decoder) equals(i int) (int, error) {
	b := d.src
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	if i == len(b) {
		return i, d.truncated()
	}
	if b[i] != '=' {
		return i, refuse(BadAttribute, i)
	}
	i++
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	if i == len(b) {
		return i, d.truncated()
	}
	if b[i] != '"' && b[i] != '\'' {
		return i, refuse(BadAttribute, i)
	}
	return i, nil
}

// qName reads the name at i (Namespaces in XML 1.0, section 4).
func (d *Decoder) qName(i int) (prefix, local span, prefixed bool, err error) {
	b := d.src
	end := ncName(b, i)
	if end == i {
		if i == len(b) {
			return prefix, local, false, d.truncated()
		}
		return prefix, local, false, refuse(BadName, i)
	}
	local = span{i, end}
	if end < len(b) && b[end] == ':' {
		prefix, prefixed = local, true
		local = span{end + 1, ncName(b, end+1)}
		if local.from == local.to {
			return prefix, local, true, refuse(BadName, end)
		}
		end = local.to
	}
	if end < len(b) && !isDelimiter(b[end]) {
		return prefix, local, prefixed, refuse(BadName, end)
	}
	return prefix, local, prefixed, nil
}

// isDelimiter reports whether c can follow a name.
func isDelimiter(c byte) bool {
	return c == '>' || c == '/' || c == '=' || isSpace(c)
}

// bindNames declares the namespaces of the tag and resolves its prefixes.
func (d *Decoder) bindNames(prefix span) error {
	if d.start.declares {
		for i := range d.attrs {
			if !d.attrs[i].declares {
				continue
			}
			if err := d.declare(&d.attrs[i]); err != nil {
				return err
			}
		}
	}
	d.start.own = d.start.space
	if d.start.prefixed {
		i, err := d.resolve(prefix)
		if err != nil {
			return err
		}
		d.start.own = xmlSpace
		if i != xmlBinding {
			d.start.own = d.ns[i].space
		}
	}
	if !d.start.prefixedAttrs {
		return nil
	}
	for i := range d.attrs {
		a := &d.attrs[i]
		if !a.prefixed() || a.declares {
			continue
		}
		var err error
		if a.binding, err = d.resolve(a.prefix()); err != nil {
			return err
		}
		// Two prefixes may stand for one namespace (section 6.3).
		for j := range d.attrs[:i] {
			other := &d.attrs[j]
			if other.prefixed() && !other.declares &&
				string(d.bytes(other.localName())) == string(d.bytes(a.localName())) && d.sameURI(other.binding, a.binding) {
				return refuse(DuplicateAttr, a.name.from)
			}
		}
	}
	return nil
}

// attr returns the value of the attribute of that name in no namespace.
func (d *Decoder) attr(name string) text {
	for i := range d.attrs {
		if a := &d.attrs[i]; !a.prefixed() && string(d.bytes(a.name)) == name {
			return d.attrText(a)
		}
	}
	return text{}
}

// attrText returns the value of a, its references resolved.
func (d *Decoder) attrText(a *attr) text {
	if a.plain {
		return text{span: a.value, present: true}
	}
	return d.unescape(&d.values, inValues, a.value)
}
