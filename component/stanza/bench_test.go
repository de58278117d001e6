package stanza

import (
	"bytes"
	"encoding/xml"
	"io"
	"syscall"
	"testing"
	"time"
)

// looped reads the same bytes n times.
type looped struct {
	data []byte
	n    int
	at   int
}

func (l *looped) Read(p []byte) (int, error) {
	if l.at == len(l.data) {
		l.at = 0
		l.n--
	}
	if l.n == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.data[l.at:])
	l.at += n
	return n, nil
}

func total(frames [][]byte) (n int64) {
	for _, frame := range frames {
		n += int64(len(frame))
	}
	return n
}

// perStanza reports what one of the stanzas of the corpus costs in time and in
// processor time of the whole process, which is the figure to trust on a busy
// machine. An iteration of the benchmarks below is the whole corpus.
func perStanza(b *testing.B, stanzas int) (report func()) {
	start, began := cpuTime(b), time.Now()
	return func() {
		n := float64(b.N * stanzas)
		b.ReportMetric(float64(time.Since(began).Nanoseconds())/n, "ns/stanza")
		b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/n, "cpu-ns/stanza")
	}
}

// cpuTime is what this process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func BenchmarkDecode(b *testing.B) {
	frames := corpus(b)
	d := NewDecoder(Limits{})
	var env Envelope
	b.SetBytes(total(frames))
	b.ReportAllocs()
	defer perStanza(b, len(frames))()
	for b.Loop() {
		for _, frame := range frames {
			if err := d.Decode(frame, &env); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	frames := corpus(b)
	data := bytes.Join(frames, []byte("\n"))
	b.SetBytes(total(frames))
	b.ReportAllocs()
	b.ResetTimer()
	defer perStanza(b, len(frames))()
	f := NewFramer(&looped{data: data, n: b.N}, Limits{})
	n := 0
	for {
		if _, err := f.Next(); err != nil {
			break
		}
		n++
	}
	if n != b.N*len(frames) {
		b.Fatalf("%d frames, want %d", n, b.N*len(frames))
	}
}

func BenchmarkFrameAndDecode(b *testing.B) {
	frames := corpus(b)
	data := bytes.Join(frames, []byte("\n"))
	d := NewDecoder(Limits{})
	var env Envelope
	b.SetBytes(total(frames))
	b.ReportAllocs()
	b.ResetTimer()
	defer perStanza(b, len(frames))()
	f := NewFramer(&looped{data: data, n: b.N}, Limits{})
	for {
		frame, err := f.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = d.Decode(frame.Bytes, &env)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	frames := corpus(b)
	data := bytes.Join(frames, []byte("\n"))
	var env Envelope
	b.SetBytes(total(frames))
	b.ReportAllocs()
	b.ResetTimer()
	defer perStanza(b, len(frames))()
	r := NewReader(&looped{data: data, n: b.N}, Limits{})
	for {
		if _, err := r.Next(&env); err == io.EOF {
			break
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodingXML(b *testing.B) {
	frames := corpus(b)
	data := append([]byte(streamHeader), bytes.Join(frames, []byte("\n"))...)
	b.SetBytes(total(frames))
	b.ReportAllocs()
	defer perStanza(b, len(frames))()
	for b.Loop() {
		d := xml.NewDecoder(bytes.NewReader(data))
		if _, err := d.Token(); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < len(frames); {
			tok, err := d.Token()
			if err != nil {
				b.Fatal(err)
			}
			start, ok := tok.(xml.StartElement)
			if !ok {
				continue
			}
			var st struct {
				XMLName xml.Name
				From    string `xml:"from,attr"`
				To      string `xml:"to,attr"`
				Type    string `xml:"type,attr"`
				ID      string `xml:"id,attr"`
				Body    string `xml:"body"`
				Delay   *struct {
					From  string `xml:"from,attr"`
					Stamp string `xml:"stamp,attr"`
				} `xml:"urn:xmpp:delay delay"`
				Forwarded *struct {
					Inner []byte `xml:",innerxml"`
				} `xml:"urn:xmpp:forward:0 forwarded"`
			}
			if err := d.DecodeElement(&st, &start); err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
}
