package component

import (
	"bytes"
	"context"
	"encoding/xml"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/component"
	"mellium.im/xmpp/jid"

	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/xmppserver"
)

// The benchmarks take the 20 stanzas of 811 bytes on average on which all
// figures of parsing are taken, over TCP on the loopback interface; one operation
// is one stanza. The server's side runs in the same process and is part of the
// figures of both.

// corpusName is the component of the corpus, once its two halves agree on it.
const corpusName = "gw.example.org"

// corpus returns the stanzas in one piece, 20 times 16 of them, all of which are
// facts on the hosts example.org (direct) and localhost (service_log).
func corpus(b *testing.B) (block []byte, stanzas int) {
	b.Helper()
	data, err := os.ReadFile("stanza/testdata/stanzas.xml")
	if err != nil {
		b.Fatal(err)
	}
	_, data, found := bytes.Cut(data, []byte("'3BF96D32'>"))
	if !found {
		b.Fatal("no stream header in the corpus")
	}
	text := strings.NewReplacer("'gw.localhost'", "'"+corpusName+"'", "@conference.example.org", "@example.org",
		"</stream:stream>", "").Replace(string(data))
	const repeat = 16
	return []byte(strings.Repeat(text, repeat)), 20 * repeat
}

// feed sends n stanzas, block by block.
func feed(b *testing.B, session *xmppserver.Session, block []byte, per, n int) {
	for sent := 0; sent < n; sent += per {
		if err := session.Write(block); err != nil {
			b.Error(err)
			return
		}
	}
}

// ingest attaches some component to the server; count is told of each stanza.
type ingest func(b *testing.B, server *xmppserver.Server, count func()) (stop func())

// throughLink is what eventpusher does.
func throughLink(b *testing.B, server *xmppserver.Server, count func()) func() {
	link, err := New(config.Component{Address: server.Addr(), Name: corpusName, Secret: testSecret, Forwarders: []string{"localhost"}},
		[]string{"example.org", "localhost"},
		Options{Sink: &hearing{handler: func(*trust.Fact) { count() }, began: func() {}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- link.Run(ctx) }()
	return func() { cancel(); <-done }
}

// element is what encoding/xml has to extract to know what a stanza.Stanza says:
// addresses, type, id, body, which children there are, delay and stanza-ids. What
// is missing is Raw, the packet that backends publish: see throughMelliumWithPacket.
type element struct {
	From      string                       `xml:"from,attr"`
	To        string                       `xml:"to,attr"`
	ID        string                       `xml:"id,attr"`
	Type      string                       `xml:"type,attr"`
	Body      *string                      `xml:"body"`
	Delay     *stamped                     `xml:"urn:xmpp:delay delay"`
	StanzaIDs []stamped                    `xml:"urn:xmpp:sid:0 stanza-id"`
	Forwarded *forwarded                   `xml:"urn:xmpp:forward:0 forwarded"`
	Children  []struct{ XMLName xml.Name } `xml:",any"`
}

type stamped struct {
	From  string `xml:"from,attr"`
	Stamp string `xml:"stamp,attr"`
	By    string `xml:"by,attr"`
}

type forwarded struct {
	Message  *element `xml:"jabber:client message"`
	Presence *element `xml:"jabber:client presence"`
}

// throughMellium is the plain way: Session.Serve and xml.Decoder.DecodeElement.
func throughMellium(b *testing.B, server *xmppserver.Server, count func()) func() {
	return serveMellium(b, server, count, false)
}

// throughMelliumWithPacket also yields the XML of the stanza, as a Link does. Tokens
// have no bytes, so it is encoded anew.
func throughMelliumWithPacket(b *testing.B, server *xmppserver.Server, count func()) func() {
	return serveMellium(b, server, count, true)
}

func serveMellium(b *testing.B, server *xmppserver.Server, count func(), packet bool) func() {
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	var raw bytes.Buffer
	encoder := xml.NewEncoder(&raw)
	go func() {
		session, err := component.NewSession(context.Background(), jid.MustParse(corpusName), []byte(testSecret), conn)
		if err != nil {
			done <- err
			return
		}
		done <- session.Serve(xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			r := xmlstream.MultiReader(xmlstream.Token(*start), t)
			if packet {
				raw.Reset()
				r = xmlstream.TeeReader(r, encoder)
			}
			d := xml.NewTokenDecoder(r)
			token, err := d.Token()
			if err != nil {
				return err
			}
			begin := token.(xml.StartElement)
			var m element
			if err := d.DecodeElement(&m, &begin); err != nil {
				return err
			}
			if packet {
				if err := encoder.Flush(); err != nil {
					return err
				}
			}
			if text := raw.String(); m.From != "" && (text != "") == packet {
				count()
			}
			return nil
		}))
	}()
	return func() { conn.Close(); <-done }
}

// figures are what some stanzas cost.
type figures struct {
	stanzas   int
	wall, cpu time.Duration
}

func (f figures) rate() float64 { return float64(f.stanzas) / f.wall.Seconds() }
func (f figures) each() float64 { return float64(f.cpu.Nanoseconds()) / 1000 / float64(f.stanzas) }

func (f *figures) add(g figures) {
	f.stanzas, f.wall, f.cpu = f.stanzas+g.stanzas, f.wall+g.wall, f.cpu+g.cpu
}

// measure runs at least n stanzas through.
func (in ingest) measure(b *testing.B, n int, begin func()) figures {
	b.Helper()
	block, per := corpus(b)
	n = (n + per - 1) / per * per
	server := startServer(b, xmppserver.Options{Component: corpusName, Secret: testSecret})
	defer server.Close()
	seen, all := 0, make(chan struct{})
	stop := in(b, server, func() {
		if seen++; seen == n {
			close(all)
		}
	})
	session := accept(b, server)
	begin()
	begun, used := time.Now(), cpuTime()
	go feed(b, session, block, per, n)
	select {
	case <-all:
	case <-session.Done():
		b.Fatalf("the connection ended after %d of %d stanzas", seen, n)
	}
	f := figures{n, time.Since(begun), cpuTime() - used}
	stop()
	return f
}

func (in ingest) benchmark(b *testing.B) {
	b.ReportAllocs()
	block, per := corpus(b)
	b.SetBytes(int64(len(block) / per))
	f := in.measure(b, b.N, b.ResetTimer)
	b.StopTimer()
	b.ReportMetric(f.rate(), "stanzas/s")
	b.ReportMetric(f.each(), "cpu-µs/stanza")
}

// BenchmarkIngest is server, loopback, Link, Handler.
func BenchmarkIngest(b *testing.B) { ingest(throughLink).benchmark(b) }

// BenchmarkMelliumServeDecodeElement is the same by mellium alone.
func BenchmarkMelliumServeDecodeElement(b *testing.B) { ingest(throughMellium).benchmark(b) }

// BenchmarkMelliumServeDecodeElementWithPacket yields all that the Link yields.
func BenchmarkMelliumServeDecodeElementWithPacket(b *testing.B) {
	ingest(throughMelliumWithPacket).benchmark(b)
}

// BenchmarkIngestRatio takes them in turns, so that other work on the machine
// meets all of them, and reports how many times more stanzas a second the Link
// takes (x-), and how many times more than with the same result (x-packet-).
func BenchmarkIngestRatio(b *testing.B) {
	for b.Loop() {
		var ours, theirs, packet figures
		for range 4 {
			ours.add(ingest(throughLink).measure(b, 100_000, func() {}))
			theirs.add(ingest(throughMellium).measure(b, 10_000, func() {}))
			packet.add(ingest(throughMelliumWithPacket).measure(b, 10_000, func() {}))
		}
		b.ReportMetric(ours.rate()/theirs.rate(), "x-wall")
		b.ReportMetric(theirs.each()/ours.each(), "x-cpu")
		b.ReportMetric(ours.rate()/packet.rate(), "x-packet-wall")
		b.ReportMetric(packet.each()/ours.each(), "x-packet-cpu")
		b.ReportMetric(ours.rate(), "stanzas/s")
		b.ReportMetric(theirs.rate(), "mellium-stanzas/s")
	}
}

// cpuTime returns what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
