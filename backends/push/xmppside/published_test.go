package xmppside

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// captured returns what real servers have published.
func captured(t testing.TB) (list []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*.xml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, strings.Split(strings.TrimSpace(string(text)), "\n")...)
	}
	return list
}

// TestReadPlain sees to it that what real servers publish is read in a hurry.
func TestReadPlain(t *testing.T) {
	for _, iq := range captured(t) {
		q, ok := readPlain(iq)
		if !ok || q.PubSub.Publish == nil || q.PubSub.Publish.Node == "" || len(q.PubSub.Publish.Items) != 1 {
			t.Errorf("%s is read as %+v, %v", iq, q, ok)
		}
	}
}

// FuzzReadPlain holds what is read in a hurry against encoding/xml.
func FuzzReadPlain(f *testing.F) {
	for _, iq := range captured(f) {
		f.Add(iq)
	}
	const open, end = "<iq><pubsub xmlns='http://jabber.org/protocol/pubsub'>", "</pubsub></iq>"
	for _, inner := range []string{
		"", "<publish node='n'/><publish node='m'/>", "<publish><item/><item><x/><notification xmlns='urn:xmpp:push:0'/></item></publish><y/>",
		"<publish-options><x xmlns='jabber:x:data'><field/><field var='a'><value>1</value> <value/><value>2<b/>3</value></field></x></publish-options>",
		"<publish-options><x xmlns='jabber:x:data' type='a'/><x xmlns='jabber:x:data'/></publish-options>",
	} {
		f.Add(open + inner + end)
	}
	f.Fuzz(func(t *testing.T, iq string) {
		got, ok := readPlain(iq)
		if !ok {
			return
		}
		var want published
		err := xml.Unmarshal([]byte(iq), &want)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%q: %v %s", iq, err, diff)
		}
	})
}
