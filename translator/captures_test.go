package translator_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/translator"
)

var update = flag.Bool("update", false, "write the golden event lists anew; read every line of the difference")

// captures are what real servers sent to a component, step by step. ejabberd
// 23.01 and Prosody 0.12.3; what the users did stands in the STEP lines.
var captures = []struct{ file, name, host string }{
	{"ejabberd-service_log", "events.localhost", "localhost"},
	// Two resources of equal priority, messages without ids, forged delays, a
	// hibernating session, blocking, a revoked subscription.
	{"ejabberd-service_log-copies", "events.localhost", "localhost"},
	// Two hosts that talk over s2s, each with a component of its own.
	{"ejabberd-s2s-alpha", "events.alpha.test", "127.0.0.1"},
	{"ejabberd-s2s-beta", "events.beta.test", "127.0.0.2"},
	{"ejabberd-privilege", "events.localhost", "localhost"},
	{"ejabberd-privilege-roster", "events.localhost", "localhost"},
	{"ejabberd-direct", "events.localhost", "localhost"},
	{"prosody-firewall", "events.localhost", "localhost"},
	// Rules that forward every copy of a presence to addresses that mean nothing.
	{"prosody-firewall-fanout", "events.localhost", "localhost"},
	{"prosody-privilege", "events.localhost", "localhost"},
	{"prosody-privilege-reconnect", "events.localhost", "localhost"},
	{"prosody-direct", "events.localhost", "localhost"},
}

func TestCaptures(t *testing.T) {
	for _, c := range captures {
		t.Run(c.file, func(t *testing.T) {
			got := translate(t, c.file, c.name, c.host)
			path := filepath.Join("testdata", c.file+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// translate runs a capture through decoder, classifier and translator and
// returns the events under the steps that made them.
func translate(t *testing.T, file, name, host string) string {
	t.Helper()
	steps := readCapture(t, file)
	hosts, rooms := []string{host}, []string{"conference." + host}
	feeds := trust.New(trust.Options{Component: name, Forwarders: slices.Concat(hosts, rooms), Hosts: hosts, MUCHosts: rooms})
	tr := translator.New(translator.Options{Hosts: hosts, MUCHosts: rooms, Component: name})
	decoder := stanza.NewDecoder(stanza.Limits{})
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	var out strings.Builder
	ids := map[string]bool{}
	for _, step := range steps {
		if step.title != "" {
			fmt.Fprintf(&out, "STEP %s\n", step.title)
		}
		for _, frame := range step.frames {
			var env stanza.Envelope
			if err := decoder.Decode(frame.bytes, &env); err != nil {
				t.Fatalf("step %q: %v", step.title, err)
			}
			s := feeds.Stanza(&env, start.Add(frame.after))
			if s == nil {
				continue
			}
			for _, e := range tr.Translate(s, nil) {
				if ids[e.ID] {
					t.Errorf("step %q: id %s twice", step.title, e.ID)
				}
				ids[e.ID] = true
				fmt.Fprintf(&out, "  %s\n", line(&e))
			}
		}
	}
	return out.String()
}

// line writes an event as the golden lists do.
func line(e *event.Event) string {
	var b strings.Builder
	if e.Kind == event.UserStatus {
		fmt.Fprintf(&b, "%-7s %s", e.Type, e.From)
	} else {
		fmt.Fprintf(&b, "%-3s %s %s -> %s", e.Direction, e.Type, e.From, e.To)
		if e.Room != "" {
			fmt.Fprintf(&b, " room=%s", e.Room)
		}
		fmt.Fprintf(&b, " %s", e.Class)
		if e.HasBody {
			fmt.Fprintf(&b, " %q", e.Body)
		}
		if e.StanzaID != "" {
			fmt.Fprintf(&b, " id=%s", e.StanzaID)
		}
	}
	fmt.Fprintf(&b, " user=%s count=%d", e.User, e.SessionCount)
	if e.Unverified {
		b.WriteString(" unverified")
	}
	if e.Reconciled {
		b.WriteString(" reconciled")
	}
	return b.String()
}

type step struct {
	title  string
	frames []frame
}

type frame struct {
	after time.Duration
	bytes []byte
}

// readCapture reads comments with the steps and the times, and between them
// what the component received, several stanzas to a line where they came at once.
func readCapture(t *testing.T, file string) []step {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", file+".xml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	steps := []step{{}}
	var after time.Duration
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text := lines.Text()
		if title, ok := strings.CutPrefix(text, "<!-- STEP: "); ok {
			steps = append(steps, step{title: strings.TrimSuffix(title, " -->")})
			continue
		}
		if clock, ok := strings.CutPrefix(text, "<!-- +"); ok {
			if after, err = time.ParseDuration(strings.TrimSuffix(clock, " -->")); err != nil {
				t.Fatal(err)
			}
			continue
		}
		framer := stanza.NewFramer(strings.NewReader(text), stanza.Limits{})
		for {
			next, err := framer.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v in %s", file, err, text)
			}
			if next.Kind == stanza.MessageFrame || next.Kind == stanza.PresenceFrame {
				last := &steps[len(steps)-1]
				last.frames = append(last.frames, frame{after, append([]byte(nil), next.Bytes...)})
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}
