package stanza

import (
	"encoding/xml"

	"mellium.im/xmpp/component"
)

// IQ is what has to be known of an IQ in order to answer it, or to hand it to who asked.
type IQ struct {
	// From, To, ID and Type are the attributes as they came, empty where absent.
	From, To, ID, Type string
	// Child is the name of the first child element, Node that one's node attribute.
	Child xml.Name
	Node  string
	// Children is how many child elements there are.
	Children int
}

// IsReply reports whether the IQ answers another one; such are never answered. What has
// no type or a wrong one is taken for a request, so that its sender learns of it.
func (q *IQ) IsReply() bool { return q.Type == "result" || q.Type == "error" }

// IsRequest reports whether the IQ is a valid request: a get or set has an id and exactly
// one child (RFC 6120 section 8.2.3).
func (q *IQ) IsRequest() bool {
	return (q.Type == "get" || q.Type == "set") && q.Children == 1 && q.ID != ""
}

// DecodeIQ reads one frame, which it checks as Decode does. What it returns does not share
// the frame's memory. The error is a *StanzaError, NotStanza if the frame is sound and no
// IQ; the IQ is then empty.
func (d *Decoder) DecodeIQ(frame []byte) (IQ, error) {
	defer d.release()
	if err := d.read(frame); err != nil {
		return IQ{}, err
	}
	f := &d.outer
	if string(d.src[f.whole.from+1:f.nameEnd]) != "iq" || !f.space.isContent() {
		return IQ{}, refuse(NotStanza, 1)
	}
	q := IQ{Children: d.children}
	if q.Children > 0 {
		q.Child, q.Node = d.firstName, d.firstNode
	}
	q.From, q.To = string(d.textBytes(f.from)), string(d.textBytes(f.to))
	q.ID, q.Type = string(d.textBytes(f.id)), string(d.textBytes(f.typ))
	return q, nil
}

// firstChild takes note of the element whose start tag was just read.
func (d *Decoder) firstChild(local []byte) {
	d.firstName = xml.Name{Space: string(d.uri()), Local: string(local)}
	d.firstNode = string(d.textBytes(d.attr("node")))
}

// uri returns the namespace of a child of the outer element, whose start tag was just read.
func (d *Decoder) uri() []byte {
	if d.start.prefixed {
		i, _ := d.resolve(span{d.start.name.from, d.start.local.from - 1}) // as it was when the tag was read
		if i == xmlBinding {
			return []byte("http://www.w3.org/XML/1998/namespace")
		}
		return d.uriBytes(i)
	}
	quoted := d.start.xmlns
	if quoted == (span{}) {
		quoted = d.outer.xmlns
	}
	if quoted == (span{}) {
		return []byte(component.NSAccept)
	}
	return appendText(nil, d.src[quoted.from+1:quoted.to-1])
}
