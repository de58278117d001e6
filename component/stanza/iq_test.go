package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// referenceIQ is what encoding/xml says of an element.
func referenceIQ(t *testing.T, frame []byte) (q IQ) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(frame))
	d.DefaultSpace = "jabber:component:accept"
	unprefixed := func(e xml.StartElement, name string) string {
		for _, a := range e.Attr {
			if a.Name == (xml.Name{Local: name}) {
				return a.Value
			}
		}
		return ""
	}
	for depth, ended := 0, false; !ended; {
		token, err := d.Token()
		if err != nil {
			t.Fatalf("%q: %v", frame, err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			switch depth {
			case 0:
				q.From, q.To, q.ID, q.Type = unprefixed(e, "from"), unprefixed(e, "to"), unprefixed(e, "id"), unprefixed(e, "type")
			case 1:
				if q.Children++; q.Children == 1 {
					q.Child, q.Node = e.Name, unprefixed(e, "node")
				}
			}
			depth++
		case xml.EndElement:
			depth--
			ended = depth == 0
		}
	}
	return q
}

func TestDecodeIQ(t *testing.T) {
	d := NewDecoder(Limits{})
	for frame, want := range map[string]IQ{
		"<iq/>": {},
		"<iq type='get' id='1' from='A@b/c' to='&lt;'><query xmlns='jabber:iq:version' node='x&amp;y'/></iq>": {
			From: "A@b/c", To: "<", ID: "1", Type: "get", Child: xml.Name{Space: "jabber:iq:version", Local: "query"}, Node: "x&y", Children: 1},
		"<iq id='2'>text<a/><b xmlns='urn:b' node='n'><c/></b></iq>":             {ID: "2", Child: xml.Name{Space: "jabber:component:accept", Local: "a"}, Children: 2},
		"<iq xmlns='jabber:client' xmlns:p='urn:&apos;p'><p:a p:node='n'/></iq>": {Child: xml.Name{Space: "urn:'p", Local: "a"}, Children: 1},
		"<iq xmlns='jabber:client'><a/></iq>":                                    {Child: xml.Name{Space: "jabber:client", Local: "a"}, Children: 1},
		"<iq><stream:a xmlns=''/></iq>":                                          {Child: xml.Name{Space: streamURI, Local: "a"}, Children: 1},
		"<iq><a xmlns=''/></iq>":                                                 {Child: xml.Name{Local: "a"}, Children: 1},
	} {
		got, err := d.DecodeIQ([]byte(frame))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", frame, err, diff)
		}
	}
	for frame, want := range map[string]Defect{
		"<message/>": NotStanza, "<iq xmlns='urn:x'/>": NotStanza, "<x:iq xmlns:x='jabber:component:accept'/>": NotStanza, "<iqs/>": NotStanza,
		"<iq><a></iq>": TagMismatch, "<iq><p:a/></iq>": BadNamespace, "<iq><!-- --></iq>": RestrictedXML,
	} {
		var refused *StanzaError
		if q, err := d.DecodeIQ([]byte(frame)); !errors.As(err, &refused) || refused.Defect != want || q != (IQ{}) {
			t.Errorf("%s: %+v, %v", frame, q, err)
		}
	}
}

// FuzzDecodeIQ holds what is read of an IQ against encoding/xml.
func FuzzDecodeIQ(f *testing.F) {
	f.Add([]byte("<iq type='get' id='1' from='a@b/c' to='events.example.org' xml:lang='en'><query xmlns='http://jabber.org/protocol/disco#info' node='x'/></iq>"))
	f.Add([]byte("<iq type='set' id='&lt;'> <a node='1'>text<b/></a><c xmlns=''/></iq>"))
	f.Add([]byte("<iq xmlns:x='y' xmlns='jabber:server'><x:a x:node='1'/></iq>"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		got, err := NewDecoder(Limits{}).DecodeIQ(frame)
		if err != nil {
			return
		}
		if bytes.Contains(frame, []byte("stream:")) { // bound by the stream's header, which the reference does not see
			return
		}
		if diff := cmp.Diff(referenceIQ(t, frame), got); diff != "" {
			t.Errorf("%q: %s", frame, diff)
		}
	})
}
