package component

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
	*sources
	t       *testing.T
	decoder *stanza.Decoder
	epoch   int
	ring    []int // numbers that the module keeps
	next    int   // the number of its next event
	open    bool  // it has heard a resume
	at      int   // the next one that it sends

	held     []kept
	disk     Position
	lastFed  Position
	restarts bool // the next one fed need not follow the last one
	gone     map[string]bool
}

// FuzzFeedSequence lets a module send, lose, repeat and forget, and an outbox keep and
// refuse, in any order, and checks what must hold at every step: what is handed over has
// no holes but announced ones, and the module is never told of more than is on disk.
func FuzzFeedSequence(f *testing.F) {
	f.Add([]byte("HhSSSCCAtSSRtHSSSC"))
	f.Add([]byte("hSSSSLSSCCCtGSSCCtSSSC"))
	f.Add([]byte("hSSSEhSSCCCCtDhSSCC"))
	f.Add([]byte("hSSSRRRtSSSCCCCtBSSSQhSSCCt"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		m := &model{t: t, decoder: stanza.NewDecoder(stanza.Limits{}), epoch: 1, next: 1, gone: make(map[string]bool), restarts: true}
		o := Options{
			Fed:         func(_ *trust.Fact, at Position, accepted func(error)) { m.fed(at, accepted) },
			Undecodable: func(u Undecodable, accepted func(error)) { m.fed(*u.At, accepted) },
			Committed: func(string) (string, uint64, bool) {
				if len(m.held) > 0 {
					t.Fatal("asked for what is kept while something is pending")
				}
				return m.disk.Epoch, m.disk.Seq, m.disk.Epoch != ""
			},
			Told:    func(string) bool { return m.disk.Seq%2 == 0 },
			Resumed: func(string, bool) {},
			Metrics: NewMetrics(nil), Log: slog.New(slog.DiscardHandler),
		}
		m.sources = newSources(&o, trust.New(trust.Options{Component: testName, Forwarders: []string{testHost}, Hosts: []string{testHost}}), testName)
		m.attached(&outbound{queue: make(chan []byte, 3)})
		for _, step := range steps[:min(len(steps), 500)] {
			m.step(step)
			m.listen()
		}
		// In the end everything comes through.
		m.open = false
		for range 5 {
			m.hello()
			for range 3 {
				m.settle(nil, len(m.held))
				m.sayAll(time.Now().Add(time.Hour))
				m.listen()
			}
			for m.open && m.at < m.next {
				m.send()
			}
		}
		if last := m.next - 1; last > 0 && m.disk != (Position{"s", m.name(), uint64(last)}) {
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
		m.settle(nil, 1)
	case 'R':
		m.settle(errFull, len(m.held))
	case 'E': // crashes, and forgets
		m.epoch, m.ring, m.next, m.open = m.epoch+1, nil, 1, false
	case 'D': // the connection ends
		out := m.sources.out
		m.detached()
		m.attached(out)
		m.open = false
		for len(out.queue) > 0 {
			<-out.queue
		}
	case 't':
		m.sayAll(time.Now().Add(time.Hour))
	}
}

func (m *model) in(element string) {
	var env stanza.Envelope
	if err := m.decoder.Decode([]byte("<message from='"+testHost+"' to='"+testName+"'>"+element+"</message>"), &env); err != nil {
		m.t.Fatal(err)
	}
	m.take(&env, time.Now())
}

func (m *model) names() string { return " xmlns='" + nsFeed + "' source='s' epoch='" + m.name() + "'" }

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
	m.in(fmt.Sprintf("<hello%s first='%d' next='%d' hosts='%s'%s/>", m.names(), m.oldest(), m.next, testHost, prev))
}

// send sends the next event, or says that it is lost.
func (m *model) send() {
	if !m.open || m.at >= m.next {
		return
	}
	if oldest := m.oldest(); m.at < oldest {
		m.in(fmt.Sprintf("<lost%s from='%d' to='%d'/>", m.names(), m.at, oldest-1))
		m.at = oldest
		return
	}
	m.in(fmt.Sprintf("<event%s seq='%d' kind='session-start' user='a@%s/r'/>", m.names(), m.at, testHost))
	m.at++
}

// listen lets the module hear what it is told.
func (m *model) listen() {
	for len(m.sources.out.queue) > 0 {
		said := saidShape.FindStringSubmatch(string(<-m.sources.out.queue))
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

func (m *model) fed(at Position, accepted func(error)) {
	follows := at.Epoch == m.lastFed.Epoch && at.Seq == m.lastFed.Seq+1
	from := m.lastFed.Seq + 1
	if at.Epoch != m.lastFed.Epoch {
		from = 1
	}
	if !follows && !m.restarts {
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
	m.held = append(m.held, kept{at, accepted})
}

// settle keeps the first n that are held, or refuses them.
func (m *model) settle(err error, n int) {
	list := m.held[:min(n, len(m.held))]
	m.held = m.held[len(list):]
	for i, k := range list {
		if err == nil {
			m.disk = k.at
		} else if i == 0 {
			m.lastFed = m.disk // and all that followed comes again
		}
	}
	for _, k := range list {
		k.accepted(err)
	}
}
