package xmppside

import (
	"encoding/xml"
	"strings"

	"eventpusher/backends/push/internal/dataform"
	"eventpusher/backends/push/notify"
	"eventpusher/internal/plainxml"
)

// published is an IQ that publishes a notification, as far as it matters: mod_push and
// mod_cloud_notify write forms of different types, and not all fields.
type published struct {
	PubSub struct {
		Publish *publish `xml:"http://jabber.org/protocol/pubsub publish"`
		Options struct {
			Form dataform.Form `xml:"jabber:x:data x"`
		} `xml:"http://jabber.org/protocol/pubsub publish-options"`
	} `xml:"http://jabber.org/protocol/pubsub pubsub"`
}

type publish struct {
	Node  string `xml:"node,attr"`
	Items []item `xml:"http://jabber.org/protocol/pubsub item"`
}

type item struct {
	Notification *notify.Published `xml:"urn:xmpp:push:0 notification"`
}

// readPublished reads the IQ.
func readPublished(iq []byte) (published, error) {
	q, ok := readPlain(string(iq))
	if ok {
		return q, nil
	}
	q = published{}
	return q, xml.Unmarshal(iq, &q)
}

// readPlain reads what is plain XML with no element twice that is read, as all servers
// write it.
func readPlain(iq string) (q published, ok bool) {
	r := plainxml.NewReader(iq, "")
	if r.Next() != plainxml.Start {
		return q, false
	}
	ok = dataform.Only(r, notify.NSPubSub, "pubsub", func() bool {
		options := 0
		return dataform.Children(r, func() bool {
			switch {
			case r.Is(notify.NSPubSub, "publish"):
				if q.PubSub.Publish != nil {
					return false
				}
				q.PubSub.Publish = &publish{Node: strings.Clone(r.Attr("node"))}
				return q.PubSub.Publish.read(r)
			case r.Is(notify.NSPubSub, "publish-options"):
				options++
				return options == 1 && dataform.Only(r, dataform.NS, "x", func() bool { return q.PubSub.Options.Form.Read(r) })
			}
			return r.Skip()
		})
	})
	return q, ok && r.Next() == plainxml.Done
}

func (p *publish) read(r *plainxml.Reader) bool {
	return dataform.Children(r, func() bool {
		if !r.Is(notify.NSPubSub, "item") {
			return r.Skip()
		}
		p.Items = append(p.Items, item{})
		i := &p.Items[len(p.Items)-1]
		return dataform.Only(r, notify.NS, "notification", func() bool {
			i.Notification = &notify.Published{}
			return i.Notification.Read(r)
		})
	})
}
