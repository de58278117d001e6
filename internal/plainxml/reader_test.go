package plainxml

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// said is one token, of either reader.
type said struct {
	Token Token
	Name  xml.Name
	Attrs map[string]string // unprefixed ones
	Text  string
}

// read returns the tokens of in, ok unless it is odd.
func read(in, space string) (list []said, ok bool) {
	r := NewReader(in, space)
	for {
		switch t := r.Next(); t {
		case Odd:
			return nil, false
		case Done:
			return list, true
		case Start:
			s := said{Token: Start, Name: xml.Name{Space: r.Space(), Local: r.Name()}, Attrs: make(map[string]string)}
			for _, a := range r.attrs {
				if !strings.HasPrefix(a.name, "xml:") {
					s.Attrs[a.name] = r.Attr(a.name)
				}
			}
			list = append(list, s)
		case Text:
			list = append(list, said{Token: Text, Text: r.Text()})
		case End:
			list = append(list, said{Token: End})
		}
	}
}

// oracle is what encoding/xml says of in.
func oracle(in, space string) (list []said, err error) {
	d := xml.NewDecoder(strings.NewReader(in))
	d.DefaultSpace = space
	for {
		token, err := d.Token()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			s := said{Token: Start, Name: t.Name, Attrs: make(map[string]string)}
			for _, a := range t.Attr {
				if a.Name.Space == "" {
					s.Attrs[a.Name.Local] = a.Value
				}
			}
			list = append(list, s)
		case xml.CharData:
			list = append(list, said{Token: Text, Text: string(t)})
		case xml.EndElement:
			list = append(list, said{Token: End})
		default:
			list = append(list, said{Text: "something else"})
		}
	}
}

var plainOnes = []string{
	"<a/>",
	"<a></a>",
	"<a b='1' c=\"2'\"/>",
	"<a xmlns='x'><b/><c xmlns=''><d/></c><e xmlns='y'>t</e></a>",
	"<iq xml:lang='en' from='a@b/c&apos;d' id='1'><q xmlns='jabber:x:data'>one &lt;&amp;&gt;&quot; two</q> \n\t</iq>",
	"<a>äöü €\u00a0😀 > </a>",
	"<a-b.c_1 d-e='é'/>",
}

var oddOnes = []string{
	"", " ", "a", " <a/>", "<a/> ", "<a/><b/>", "<a", "<a>", "<a></b>", "<a></a", "</a>", "<a b/>", "<a b=1/>", "<a b='1'c='2'/>", "<a b='1' b='2'/>",
	"<x:a xmlns:x='y'/>", "<a xmlns:x='y'/>", "<a x:b='1'/>", "<a b='<'/>", "<a b='&unknown;'/>", "<a>&#65;</a>", "<a>&amp</a>", "<a>a\r\n</a>", "<a>\x00</a>",
	"<a>\xff</a>", "<a>\uFFFE</a>", "<a>]]></a>", "<a><![CDATA[x]]></a>", "<a><!-- x --></a>", "<?xml version='1.0'?><a/>", "<!DOCTYPE a><a/>", "<1/>", "<a ='1'/>",
	strings.Repeat("<a>", maxDepth+1) + strings.Repeat("</a>", maxDepth+1),
}

func TestPlain(t *testing.T) {
	for _, in := range plainOnes {
		list, ok := read(in, "outside")
		if !ok {
			t.Errorf("%s is called odd", in)
			continue
		}
		want, err := oracle(in, "outside")
		if diff := cmp.Diff(want, list); diff != "" || err != nil {
			t.Errorf("%s: %v %s", in, err, diff)
		}
	}
}

func TestOdd(t *testing.T) {
	for _, in := range oddOnes {
		if list, ok := read(in, ""); ok {
			t.Errorf("%q is read as %v", in, list)
		}
	}
}

func TestSkip(t *testing.T) {
	r := NewReader("<a><b><c/>text<d>x</d></b><e/></a>", "")
	r.Next()
	r.Next()
	if !r.Skip() || r.Next() != Start || !r.Is("", "e") || !r.Skip() || r.Next() != End || r.Next() != Done {
		t.Error("what is skipped is not the element")
	}
	if r = NewReader("<a><b>", ""); r.Next() != Start || r.Skip() {
		t.Error("an element without end was skipped")
	}
}

// FuzzReader holds what is not odd against encoding/xml.
func FuzzReader(f *testing.F) {
	for _, in := range append(append([]string(nil), plainOnes...), oddOnes...) {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		list, ok := read(in, "outside")
		if !ok {
			return
		}
		want, err := oracle(in, "outside")
		if diff := cmp.Diff(want, list); diff != "" || err != nil {
			t.Errorf("%q: %v %s", in, err, diff)
		}
	})
}

const publish = "<iq to='events.example.org' from='example.org' type='set' id='123'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='0123456789abcdef'><item>" +
	"<notification xmlns='urn:xmpp:push:0'><x type='form' xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>" +
	"<field var='last-message-body' type='text-single'><value>New Message!</value></field></x></notification></item></publish></pubsub></iq>"

func BenchmarkReader(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		r := NewReader(publish, "jabber:component:accept")
		for t := r.Next(); t != Done; t = r.Next() {
			if t == Odd {
				b.Fatal("odd")
			}
		}
	}
}

func BenchmarkEncodingXML(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		d := xml.NewDecoder(strings.NewReader(publish))
		for _, err := d.Token(); err != io.EOF; _, err = d.Token() {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
