package stanza

import "bytes"

// Limits bound what one stanza may cost. A zero field means its default.
type Limits struct {
	// Size is the greatest number of bytes of one top-level element.
	Size int
	// Depth is how far elements may nest; the top-level element is at depth 1.
	Depth int
}

// The default limits. Prosody passes on stanzas of 512 KiB and a body of 200 KiB
// can arrive as 1.2 MB, since servers escape apostrophes on the way. Depth bounds
// memory only: neither Framer nor Decoder recurses.
const (
	DefaultSize  = 4 << 20
	DefaultDepth = 1000
)

func (l Limits) withDefaults() Limits {
	if l.Size <= 0 {
		l.Size = DefaultSize
	}
	if l.Depth <= 0 {
		l.Depth = DefaultDepth
	}
	return l
}

// FrameKind is what a top-level element of the stream is, by its name alone.
type FrameKind uint8

// The kinds of frame. MessageFrame and PresenceFrame are for the Decoder, the others
// for whoever keeps the session.
const (
	OtherFrame    FrameKind = iota // iq, stream:error, anything else
	MessageFrame                   // message
	PresenceFrame                  // presence
	EndFrame                       // </stream:stream>
)

// String returns the kind as logs and metrics name it.
func (k FrameKind) String() string {
	switch k {
	case MessageFrame:
		return "message"
	case PresenceFrame:
		return "presence"
	case EndFrame:
		return "end"
	}
	return "other"
}

// Fault says why a frame is not whole.
type Fault uint8

// The faults. A frame that has one was skipped to its end; the stream goes on.
const (
	NoFault  Fault = iota
	TooLarge       // more than Limits.Size bytes
	TooDeep        // nested deeper than Limits.Depth
)

// String returns the fault as logs and metrics name it.
func (f Fault) String() string {
	switch f {
	case TooLarge:
		return "too large"
	case TooDeep:
		return "too deep"
	}
	return "none"
}

// Frame is one top-level element of a stream, or its end.
type Frame struct {
	Kind FrameKind
	// Bytes is the element as it came, valid until the next call of Next.
	// With a Fault it is the beginning of the element: its first 64 KiB, fewer if
	// Limits.Size is smaller or the fault showed earlier. Given to Decoder.Decode it
	// yields an error, the addresses if the start tag is in it, and the feed's element if
	// the start tag of the first child is in it.
	Bytes []byte
	Fault Fault
}

// frameKind reads the name at the beginning of an element.
func frameKind(b []byte) FrameKind {
	if len(b) > 1 && b[1] == '/' {
		return EndFrame
	}
	i := 1
	for i < len(b) && scanClass[b[i]] == 0 && !isSpace(b[i]) {
		i++
	}
	if i < len(b) {
		switch string(b[1:i]) {
		case "message":
			return MessageFrame
		case "presence":
			return PresenceFrame
		}
	}
	return OtherFrame
}

// isStreamEnd reports whether b closes the stream. RFC 6120 section 4.8.5 leaves no
// other prefix than "stream" in practice.
func isStreamEnd(b []byte) bool {
	name, ok := bytes.CutPrefix(b, []byte("</stream:stream"))
	return ok && len(name) > 0 && (name[0] == '>' || isSpace(name[0]))
}
