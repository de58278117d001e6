package eventfeed

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
)

// model is a module, an outbox and the sources between them, driven step by step.
type model struct {
	*Sources
	t       *testing.T
	queue   chan []byte
	decoder *stanza.Decoder
	epoch   int
	ring    []int // numbers that the module keeps
	next    int   // the number of its next event
	open    bool  // it has heard a resume
	at      int   // the next one that it sends

	held     []Position
	disk     Position
	lastFed  Position
	restarts bool // the next one fed need not follow the last one
	gone     map[string]bool
	holes    uint64 // that the sources have counted
	tokens   bool   // the module repeats them
	token    string
}

// FuzzFeedSequence lets a module send, lose, repeat and forget, and an outbox keep and
// refuse, in any order, and checks what must hold at every step: what is handed over has
// no holes but announced ones, and the module is never told of more than is on disk.
func FuzzFeedSequence(f *testing.F) {
	f.Add([]byte("HhSSSCCAtSSRtHSSSC"))
	f.Add([]byte("hSSSSLSSCCCtGSSCCtSSSC"))
	f.Add([]byte("hSSSEhSSCCCCtDhSSCC"))
	f.Add([]byte("hSSSRRRtSSSCCCCtBSSSQhSSCCt"))
	f.Add([]byte("ThSSSCCFSSfSCCt"))
	f.Add([]byte("TFhFSSSCCftSSRtHSSFSC"))
	f.Add([]byte("TFfhSSDhFfSSCCEFhfSStCC"))
	f.Add([]byte("hSGSStGStGSSSCC"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		m := &model{t: t, decoder: stanza.NewDecoder(stanza.Limits{}), epoch: 1, next: 1, gone: make(map[string]bool), restarts: true}
		m.Sources = New(Options{
			Component: testName, Sink: m, Metrics: NewMetrics(nil), Log: slog.New(slog.DiscardHandler),
			Judge: trust.New(trust.Options{Component: testName, Forwarders: []string{testHost}, Hosts: []string{testHost}}),
		})
		m.queue = make(chan []byte, 3)
		m.connect()
		m.tokens = len(steps) > 0 && steps[0] == 'T'
		for _, step := range steps[:min(len(steps), 500)] {
			m.step(step)
			m.listen()
		}
		// In the end everything comes through.
		m.open = false
		for range 5 {
			m.hello()
			for range 3 {
				m.keep(len(m.held))
				m.sayAll(time.Now().Add(time.Hour))
				m.listen()
			}
			for m.open && m.at < m.next {
				m.send()
			}
		}
		last := m.next - 1
		never := m.disk.Epoch != m.name() && m.gone[fmt.Sprint(m.name(), last)] // it was given up before the epoch was heard
		if last > 0 && !never && m.disk != (Position{Source: "s", Epoch: m.name(), Seq: uint64(last), Complete: m.disk.Complete}) {
			t.Fatalf("%+v is on disk, the module has come to %d in %s", m.disk, last, m.name())
		}
	})
}

func (m *model) name() string { return fmt.Sprint("e", m.epoch) }

func (m *model) step(step byte) {
	switch step {
	case 'h', 'H':
		m.hello()
	case 'S':
		m.ring = append(m.ring, m.next)
		m.next++
		m.send()
	case 's':
		m.send()
	case 'B': // sends one again
		if m.open && m.at > 1 && slices.Contains(m.ring, m.at-1) {
			m.at--
		}
	case 'G': // skips one
		if m.open && m.at < m.next {
			m.at++
		}
	case 'L': // the ring is full
		if len(m.ring) > 0 {
			m.gone[fmt.Sprint(m.name(), m.ring[0])] = true
			m.ring = m.ring[1:]
		}
	case 'C':
		m.keep(1)
	case 'R':
		m.refuse()
	case 'E': // crashes, and forgets
		m.epoch, m.ring, m.next, m.open = m.epoch+1, nil, 1, false
	case 'D': // the connection ends
		m.Detached()
		m.connect()
		m.open, m.token = false, ""
		for len(m.queue) > 0 {
			<-m.queue
		}
	case 'F': // another component of the server says hello in the module's name
		m.forge("forged", 100)
	case 'f':
		m.forge(m.name(), 1000)
	case 't':
		m.sayAll(time.Now().Add(time.Hour))
	}
}

func (m *model) in(element string) {
	var env stanza.Envelope
	if err := m.decoder.Decode([]byte("<message from='"+testHost+"' to='"+testName+"'>"+element+"</message>"), &env); err != nil {
		m.t.Fatal(err)
	}
	m.Sources.Take(&env, time.Now())
}

func (m *model) names() string { return " xmlns='" + NS + "' source='s' epoch='" + m.name() + "'" }

// oldest is the number of the oldest event that the module keeps.
func (m *model) oldest() int {
	if len(m.ring) > 0 {
		return m.ring[0]
	}
	return m.next
}

func (m *model) hello() {
	m.open = false
	prev := ""
	if m.epoch > 1 {
		prev = fmt.Sprintf(" prev-epoch='e%d'", m.epoch-1)
	}
	m.in(fmt.Sprintf("<hello%s first='%d' next='%d' hosts='%s'%s token='%v'/>", m.names(), m.oldest(), m.next, testHost, prev, m.tokens))
}

// forge says a hello that is not the module's. Without tokens that cannot be told.
func (m *model) forge(epoch string, first int) {
	if m.tokens {
		m.in(fmt.Sprintf("<hello xmlns='"+NS+"' source='s' epoch='%s' first='%d' next='%d' hosts='%s' token='true'/>", epoch, first, first+1, testHost))
	}
}

// repeated is the token attribute of what the module sends.
func (m *model) repeated() string {
	if !m.tokens {
		return ""
	}
	return " token='" + m.token + "'"
}

// send sends the next event, or says that it is lost.
func (m *model) send() {
	if !m.open || m.at >= m.next {
		return
	}
	if oldest := m.oldest(); m.at < oldest {
		m.in(fmt.Sprintf("<lost%s from='%d' to='%d'%s/>", m.names(), m.at, oldest-1, m.repeated()))
		m.at = oldest
		return
	}
	m.in(fmt.Sprintf("<event%s seq='%d' kind='session-start' user='a@%s/r'%s/>", m.names(), m.at, testHost, m.repeated()))
	m.at++
}

// listen lets the module hear what it is told.
func (m *model) listen() {
	for len(m.queue) > 0 {
		b := string(<-m.queue)
		said := saidShape.FindStringSubmatch(b)[1:]
		if token := tokenShape.FindStringSubmatch(b); token != nil {
			m.token = token[1]
		}
		var seq int
		fmt.Sscan(said[4], &seq)
		if said[4] != "" && (said[3] != m.disk.Epoch || uint64(seq) > m.disk.Seq) {
			m.t.Fatalf("told %v, and %+v is on disk", said[1:], m.disk)
		}
		if said[3] != "" && said[3] != m.name() {
			if said[1] == "ack" {
				continue // of an epoch before
			}
			seq = 0
		}
		switch said[1] {
		case "resume":
			m.open, m.at = true, m.oldest()
			if seq > 0 {
				m.at = seq + 1
			}
		case "snapshot":
			continue
		}
		for len(m.ring) > 0 && m.ring[0] <= seq {
			m.ring = m.ring[1:]
		}
	}
}

// Take implements Sink.
func (m *model) Take(_ *trust.Fact, at Position) bool {
	follows := at.Epoch == m.lastFed.Epoch && at.Seq == m.lastFed.Seq+1
	from := m.lastFed.Seq + 1
	if at.Epoch != m.lastFed.Epoch {
		from = 1
	}
	holes := m.byName["s"].holes
	skipped := holes > m.holes
	m.holes = holes
	if !follows && !m.restarts && !skipped {
		for seq := from; seq < at.Seq; seq++ {
			if !m.gone[fmt.Sprint(at.Epoch, seq)] {
				m.t.Fatalf("%+v comes behind %+v, and %d was not lost", at, m.lastFed, seq)
			}
		}
		if at.Seq < from {
			m.t.Fatalf("%+v comes behind %+v", at, m.lastFed)
		}
	}
	m.lastFed, m.restarts = at, false
	m.held = append(m.held, at)
	return true
}

// Bury implements Sink.
func (m *model) Bury(u *Undecodable) bool { return m.Take(nil, u.At) }

// Resumed implements Sink.
func (m *model) Resumed(string, Continuity) {}

// Positions implements Sink.
func (m *model) Positions() []Position {
	if len(m.held) > 0 {
		m.t.Fatal("asked for what is kept while something is pending")
	}
	if m.disk.Epoch == "" {
		return nil
	}
	at := m.disk
	at.Complete = at.Seq%2 == 0
	return []Position{at}
}

// keep puts the first n that are held on the disk.
func (m *model) keep(n int) {
	list := m.held[:min(n, len(m.held))]
	if m.held = m.held[len(list):]; len(list) == 0 {
		return
	}
	m.disk = list[len(list)-1]
	m.Kept([]Position{m.disk})
}

// refuse gives up what is held, and all of it comes again.
func (m *model) refuse() {
	if len(m.held) > 0 {
		m.held, m.lastFed = nil, m.disk
		m.Refused("s")
	}
}

func (m *model) connect() {
	m.Attached(func(b []byte) bool {
		select {
		case m.queue <- b:
			return true
		default:
			return false
		}
	})
}
