package stanza

import "io"

// Reader reads a component stream as a Framer and a Decoder do together, but goes
// over nearly every byte only once: a stanza that is sound and has come whole shows
// the Decoder its own end. The Framer takes care of all others.
//
// One goroutine at a time.
type Reader struct {
	framer  *Framer
	decoder *Decoder
}

// NewReader returns a Reader of r, which begins behind the header and the handshake.
func NewReader(r io.Reader, l Limits) *Reader {
	return &Reader{framer: NewFramer(r, l), decoder: NewDecoder(l)}
}

// Next returns the next top-level element as Framer.Next does. If it is a message or
// presence without Fault, env then holds what Decoder.Decode makes of it; otherwise
// env is left alone.
//
// A *StanzaError is the Decoder's: the frame is valid and the stream goes on. Every
// other error is the Framer's.
func (r *Reader) Next(env *Envelope) (Frame, error) {
	f := r.framer
	whole, err := f.ahead()
	if err != nil {
		return Frame{}, err
	}
	if kind := frameKind(whole); kind == MessageFrame || kind == PresenceFrame {
		if n := r.decoder.decodeFirst(whole, env); n > 0 {
			f.skip(n)
			return Frame{Kind: kind, Bytes: whole[:n]}, nil
		}
	}
	frame, err := f.Next()
	if err == nil && frame.Fault == NoFault && (frame.Kind == MessageFrame || frame.Kind == PresenceFrame) {
		err = r.decoder.Decode(frame.Bytes, env)
	}
	return frame, err
}
