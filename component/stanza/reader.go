package stanza

import (
	"io"
	"unicode/utf8"
)

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
// presence, env then holds what Decoder.Decode makes of it, or, if it has a Fault, of
// its beginning, as of any that is refused; otherwise env is left alone.
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
	if err != nil || frame.Kind != MessageFrame && frame.Kind != PresenceFrame {
		return frame, err
	}
	err = r.decoder.Decode(frame.Bytes, env)
	if frame.Fault != NoFault {
		err = nil // the fault says what is wrong
	}
	return frame, err
}

// decodeFirst decodes the stanza that b begins with, whatever follows it, and returns
// its length. It returns 0, with env left alone, if there is anything wrong with the
// stanza or it goes on behind b.
func (d *Decoder) decodeFirst(b []byte, env *Envelope) int {
	d.reset(b)
	// Reading the element before it is known to be UTF-8 is safe, and if all of it
	// turns out to be, it was read the way it should be.
	n, err := d.element()
	if err != nil || n > d.limits.Size || !d.isStanza() || !utf8.Valid(b[:n]) {
		n = 0
	} else {
		d.src = b[:n]
		env.reset()
		d.finish(env)
	}
	d.release()
	return n
}
