package stanza

import "io"

const (
	// bufferSize is how many bytes a Framer reads at once, and what it keeps between giants.
	bufferSize = 64 << 10
	// keepSize is how many bytes of a faulty element are kept at most: the feed's element,
	// whose start tag may be that long, must be read even then.
	keepSize = 64 << 10
	// skipSize is the least room beside them for skipping the rest.
	skipSize = bufferSize / 2
	// lowRoom is the room below which data is moved to the front before a read, so
	// that reads do not dwindle towards the end of the buffer.
	lowRoom = bufferSize / 16
	// maxEmptyReads is how often a reader may return nothing in a row.
	maxEmptyReads = 100
)

// Framer cuts a component stream, behind the header and the handshake, into its
// top-level elements. Whitespace between them, which servers send as keepalive,
// is skipped.
//
// Each byte is looked at once, however small the reads are. One goroutine at a time.
type Framer struct {
	r    io.Reader
	size int
	scan scanner
	// buf[start:pos] is the element so far, buf[pos:end] was read but not looked at.
	buf             []byte
	start, pos, end int
	// offset counts all bytes up to pos since the beginning.
	offset int64
	// inside: an element has begun and not ended.
	inside bool
	// fault of the element inside; kept is how much of it stays at buf[start:].
	fault Fault
	kept  int
	// readErr came with the last bytes and is due when they are used up.
	readErr error
	// final is what every later call returns.
	final error
}

// NewFramer returns a Framer that reads r, with a buffer of 64 KiB that grows up to
// l.Size for a giant and shrinks again after it.
func NewFramer(r io.Reader, l Limits) *Framer {
	l = l.withDefaults()
	return &Framer{
		r:    r,
		size: l.Size,
		scan: scanner{maxDepth: l.Depth, open: make([]uint64, 0, 64)},
		buf:  make([]byte, bufferSize),
	}
}

// Next returns the next top-level element.
//
// At the end of the connection it returns io.EOF between elements and
// io.ErrUnexpectedEOF inside one. After EndFrame it returns io.EOF without reading on.
// A *SyntaxError says that the stream is broken; it is returned from then on.
// Any other error is the reader's own: nothing is lost by it, and where the reader can
// go on, as after a deadline that was moved, Next can be called again.
func (f *Framer) Next() (Frame, error) {
	if err := f.enter(); err != nil {
		return Frame{}, err
	}
	for {
		n, done, defect := f.scan.scan(f.buf[f.pos:f.end])
		f.pos += n
		f.offset += int64(n)
		if defect != 0 {
			return Frame{}, f.broken(defect)
		}
		f.judge()
		if done {
			return f.finish()
		}
		if f.fault != NoFault {
			f.discard()
		}
		if err := f.fill(); err != nil {
			if err == io.EOF {
				f.final = io.ErrUnexpectedEOF
				err = f.final
			}
			return Frame{}, err
		}
	}
}

// ahead moves on to the next element and returns what has come of it, and perhaps of
// elements behind it; nothing if a part of it has been looked at already.
func (f *Framer) ahead() ([]byte, error) {
	if err := f.enter(); err != nil || f.pos > f.start {
		return nil, err
	}
	return f.buf[f.pos:f.end], nil
}

// skip moves behind the element at pos, which has n bytes.
func (f *Framer) skip(n int) {
	f.pos += n
	f.offset += int64(n)
	f.inside = false
}

// enter moves on to the next element unless there is one already.
func (f *Framer) enter() error {
	if f.final != nil {
		return f.final
	}
	if f.inside {
		return nil
	}
	f.shrink()
	return f.begin()
}

// begin skips whitespace up to the '<' of the next element.
func (f *Framer) begin() error {
	for {
		for f.pos < f.end && isSpace(f.buf[f.pos]) {
			f.pos++
			f.offset++
		}
		f.start = f.pos
		if f.pos < f.end {
			break
		}
		if err := f.fill(); err != nil {
			if err == io.EOF {
				f.final = io.EOF
			}
			return err
		}
	}
	if f.buf[f.pos] != '<' {
		return f.broken(StrayText)
	}
	f.inside = true
	f.fault, f.kept = NoFault, 0
	f.scan.reset()
	return nil
}

// judge notes the first fault of the element.
func (f *Framer) judge() {
	if f.fault != NoFault {
		return
	}
	n := f.pos - f.start
	switch {
	case n > f.size:
		f.fault = TooLarge
	case f.scan.deep:
		f.fault = TooDeep
	default:
		return
	}
	f.kept = min(n, f.size, keepSize)
}

// discard drops what has been looked at of a faulty element but for its beginning,
// which goes to the front of the buffer.
func (f *Framer) discard() {
	if len(f.buf) < f.kept+skipSize {
		grown := make([]byte, f.kept+skipSize)
		copy(grown, f.buf[f.start:f.start+f.kept])
		f.buf, f.start = grown, 0
	}
	if f.start > 0 {
		copy(f.buf, f.buf[f.start:f.start+f.kept])
		f.start = 0
	}
	f.pos, f.end = f.kept, f.kept
}

// finish returns the frame that ends at pos.
func (f *Framer) finish() (Frame, error) {
	f.inside = false
	frame := Frame{Bytes: f.buf[f.start:f.pos], Fault: f.fault}
	if f.fault != NoFault {
		frame.Bytes = f.buf[f.start : f.start+f.kept]
	}
	frame.Kind = frameKind(frame.Bytes)
	if frame.Kind == EndFrame {
		if !isStreamEnd(frame.Bytes) {
			return Frame{}, f.broken(TagMismatch)
		}
		f.final = io.EOF
	}
	return frame, nil
}

func (f *Framer) broken(d Defect) error {
	f.final = &SyntaxError{Defect: d, Offset: f.offset}
	return f.final
}

// fill reads more behind end, making room first.
func (f *Framer) fill() error {
	if f.readErr != nil {
		err := f.readErr
		f.readErr = nil
		return err
	}
	if f.start == f.end {
		f.start, f.pos, f.end = 0, 0, 0
	}
	if f.start > 0 && len(f.buf)-f.end < lowRoom {
		copy(f.buf, f.buf[f.start:f.end])
		f.pos -= f.start
		f.end -= f.start
		f.start = 0
	}
	if f.end == len(f.buf) {
		// One byte more than Size shows that an element is too large.
		grown := make([]byte, min(2*len(f.buf), f.size+1))
		copy(grown, f.buf[:f.end])
		f.buf = grown
	}
	for range maxEmptyReads {
		n, err := f.r.Read(f.buf[f.end:])
		f.end += n
		if n > 0 {
			f.readErr = err
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// shrink gives the memory of a giant back once it is used up.
func (f *Framer) shrink() {
	if len(f.buf) <= bufferSize || f.end-f.pos > bufferSize/2 {
		return
	}
	small := make([]byte, bufferSize)
	f.end = copy(small, f.buf[f.pos:f.end])
	f.buf, f.start, f.pos = small, 0, 0
}
