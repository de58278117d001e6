package notify

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestElement: what is written is read again, byte for byte.
func TestElement(t *testing.T) {
	want := []Field{{"message-count", "1"}, {"last-message-body", "  a <b> & 'c'\n"}, {"empty", ""}}
	read, err := ReadElement(Element(want))
	if err != nil {
		t.Fatal(err)
	}
	var got []Field
	for _, f := range read.Form.Fields[1:] { // the first is FORM_TYPE
		got = append(got, Field{f.Name, f.Values[0]})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if read, err := ReadElement(Element(nil)); err != nil || len(read.Form.Fields) != 0 {
		t.Errorf("%v, %v", read, err)
	}
	if marked := Urgent(nil, true); marked != "<notification xmlns='urn:xmpp:push:0'><priority xmlns='tigase:push:priority:0'>high</priority></notification>" {
		t.Error(marked)
	}
	encrypted := Encrypted{IV: "AAAA", Type: "voip", Data: "QUJD+/=="}
	if read, err = ReadElement(encrypted.Element(true)); err != nil || read.Encrypted != encrypted {
		t.Errorf("%+v, %v", read, err)
	}
}

// FuzzReadElement holds what is read in a hurry against encoding/xml, and sees to it that
// our own packets are.
func FuzzReadElement(f *testing.F) {
	f.Add("<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='form'><field var='a'><value>1</value></field><field var='b'/></x></notification>")
	f.Add("<notification xmlns='urn:xmpp:push:0'/>")
	f.Add("<notification xmlns='other'/>")
	f.Add("<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'/></notification>")
	f.Add("<notification xmlns='urn:xmpp:push:0'><encrypted xmlns='tigase:push:encrypt:0' iv='a' type='voip'>b</encrypted><priority xmlns='tigase:push:priority:0'>high</priority></notification>")
	f.Add("<notification xmlns='urn:xmpp:push:0'><encrypted xmlns='tigase:push:encrypt:0'/><encrypted xmlns='tigase:push:encrypt:0' iv='a'/></notification>")
	f.Add("<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data'/><x xmlns='jabber:x:data'/></notification>")
	f.Fuzz(func(t *testing.T, packet string) {
		got, ok := readPlain(packet)
		if !ok {
			return
		}
		var want Published
		err := xml.Unmarshal([]byte(packet), &want)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%q: %v %s", packet, err, diff)
		}
		var fields []Field
		for _, one := range got.Form.Fields {
			fields = append(fields, Field{Name: one.Name, Value: one.Value()})
		}
		own := Element(fields)
		if _, ok := readPlain(own); !ok && !strings.Contains(own, "&#") && !strings.Contains(own, "\uFFFD") {
			t.Errorf("our own is odd: %q", own)
		}
	})
}
