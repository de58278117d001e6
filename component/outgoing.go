package component

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// maxOutgoing bounds a stanza of ours, in bytes. Prosody ends the stream of a
// component that exceeds 512 KiB (component_stanza_size_limit); others take more.
const maxOutgoing = 256 << 10

// checker keeps stanzas from the stream for which servers end it: what is not
// well-formed, has another namespace or comes from another domain than ours. It is
// safe for concurrent use.
type checker struct {
	name     jid.JID
	decoders sync.Pool
}

func newChecker(name string) *checker {
	c := &checker{name: jid.Prepare(name)}
	c.decoders.New = func() any { return stanza.NewDecoder(stanza.Limits{Size: maxOutgoing}) }
	return c
}

// check returns what is wrong with a stanza of ours, nil if it may go out.
func (c *checker) check(b []byte) error {
	d := c.decoders.Get().(*stanza.Decoder)
	defer c.decoders.Put(d)
	var env stanza.Envelope
	err := d.Decode(b, &env)
	if err != nil && (!isDefect(err, stanza.NotStanza) || !startsIQ(b)) {
		return fmt.Errorf("the stanza cannot be sent: %w", err)
	}
	switch {
	case bytes.Contains(startTag(b), []byte("xmlns")):
		return errors.New("the stanza cannot be sent: its element must be in the namespace of the stream, so it may not declare any")
	case env.Outer.To == "":
		return errors.New("the stanza cannot be sent: it has no to (XEP-0114 demands it)")
	case jid.JID(env.Outer.From.Domain()) != c.name:
		return fmt.Errorf("the stanza cannot be sent: its from is not on %s, and the server would end the stream", c.name)
	}
	return nil
}

// startTag returns the start tag of a well-formed element.
func startTag(b []byte) []byte {
	var quote byte
	for i, c := range b {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
		case c == '>':
			return b[:i]
		case c == '\'' || c == '"':
			quote = c
		}
	}
	return b
}

func isDefect(err error, d stanza.Defect) bool {
	var refused *stanza.StanzaError
	return errors.As(err, &refused) && refused.Defect == d
}

// startsIQ reports whether an element is called iq.
func startsIQ(b []byte) bool {
	rest, ok := bytes.CutPrefix(b, []byte("<iq"))
	return ok && len(rest) > 0 && (rest[0] == ' ' || rest[0] == '>' || rest[0] == '/' || rest[0] == '\t' || rest[0] == '\n' || rest[0] == '\r')
}
