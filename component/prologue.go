package component

import (
	"bufio"
	"bytes"
)

// prologue reads what a server says until it has accepted the handshake, and leaves out
// what XML allows there and means nothing: a byte order mark, the XML declaration,
// whitespace, comments and processing instructions before the stream header and before
// the answer to our handshake (XML 1.0 sections 2.8 and 3.1). mellium expects the header
// and the answer right after each other.
//
// It takes no byte after the answer's first one by itself, so what follows belongs to
// whoever reads on. One goroutine at a time.
type prologue struct {
	in    *bufio.Reader
	place prologuePlace
	quote byte // of the attribute value being read, 0 outside
}

// prologuePlace is where in the stream a prologue stands.
type prologuePlace uint8

const (
	beforeDocument prologuePlace = iota
	beforeHeader
	inHeader
	beforeAnswer
	inAnswer
)

// ReadByte implements io.ByteReader.
func (p *prologue) ReadByte() (byte, error) {
	switch p.place {
	case beforeDocument, beforeHeader, beforeAnswer:
		if err := p.skip(); err != nil {
			return 0, err
		}
		p.place++
	case inHeader:
		b, err := p.in.ReadByte()
		if err == nil {
			p.header(b)
		}
		return b, err
	}
	return p.in.ReadByte()
}

// header looks for the end of the header's start tag.
func (p *prologue) header(b byte) {
	switch {
	case p.quote != 0:
		if b == p.quote {
			p.quote = 0
		}
	case b == '\'' || b == '"':
		p.quote = b
	case b == '>':
		p.place = beforeAnswer
	}
}

// skip leaves out all that means nothing, up to a '<' of something else or to what is no
// markup at all.
func (p *prologue) skip() error {
	if p.place == beforeDocument {
		p.place = beforeHeader
		mark := []byte("\uFEFF")
		if first, err := p.in.Peek(1); err != nil {
			return err
		} else if first[0] == mark[0] {
			if first, err = p.in.Peek(len(mark)); err != nil || !bytes.Equal(first, mark) {
				return err
			}
			p.in.Discard(len(mark))
		}
	}
	for {
		next, err := p.in.Peek(1)
		if err != nil {
			return err
		}
		switch next[0] {
		case ' ', '\t', '\r', '\n':
			p.in.Discard(1)
			continue
		case '<':
		default:
			return nil
		}
		if next, err = p.in.Peek(2); err != nil {
			return err
		}
		end := "?>"
		if next[1] == '!' {
			if next, err = p.in.Peek(len("<!--")); err != nil {
				return err
			}
			end = "-->"
		}
		if string(next) != "<?" && string(next) != "<!--" {
			return nil
		}
		if err := p.skipTo(len(next), end); err != nil {
			return err
		}
	}
}

// skipTo leaves out n bytes and then all up to the end of that text.
func (p *prologue) skipTo(n int, end string) error {
	p.in.Discard(n)
	for {
		next, err := p.in.Peek(len(end))
		if err != nil {
			return err
		}
		if string(next) == end {
			p.in.Discard(len(end))
			return nil
		}
		p.in.Discard(1)
	}
}
