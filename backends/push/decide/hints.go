package decide

import (
	"encoding/xml"
	"strings"
)

const (
	nsHints  = "urn:xmpp:hints"
	nsJingle = "urn:xmpp:jingle-message:0"
	nsRTP    = "urn:xmpp:jingle:apps:rtp:1"
)

// maxCall bounds the step of a call and its id, which go out as they are.
const maxCall = 256

// hints is what the plugin of that name asks for.
type hints struct {
	noStore, store bool
	jingle         bool // there is a step of a call, with an id or without
	call, callID   string
	media          []string
}

// maxMedia bounds what a call says of its media: audio and video.
const maxMedia = 2

// readHints looks at the children of a message. What cannot be read has no hints.
func readHints(packet string) (h hints) {
	d := xml.NewDecoder(strings.NewReader(packet))
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return h
		}
		switch t := token.(type) {
		case xml.StartElement:
			switch depth {
			case 1:
				h.child(t)
			case 2:
				h.description(t)
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
}

func (h *hints) child(e xml.StartElement) {
	h.jingle = h.jingle || e.Name.Space == nsJingle
	switch {
	case e.Name.Space == nsHints && e.Name.Local == "no-store":
		h.noStore = true
	case e.Name.Space == nsHints && e.Name.Local == "store":
		h.store = true
	case e.Name.Space == nsJingle && h.callID == "":
		for _, a := range e.Attr {
			if a.Name.Space == "" && a.Name.Local == "id" && len(e.Name.Local) <= maxCall && len(a.Value) <= maxCall {
				h.call, h.callID = e.Name.Local, a.Value
			}
		}
	}
}

// description takes note of a media of the call that was read last (XEP-0353 section 3.1).
func (h *hints) description(e xml.StartElement) {
	if e.Name.Space != nsRTP || e.Name.Local != "description" || h.callID == "" || len(h.media) == maxMedia {
		return
	}
	for _, a := range e.Attr {
		if a.Name.Space == "" && a.Name.Local == "media" && (a.Value == "audio" || a.Value == "video") {
			h.media = append(h.media, a.Value)
		}
	}
}
