package trust

import (
	"bytes"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// authority lists the series of the metric as host/class/feed=value.
func (r *rig) authorityMetric(t testing.TB) (all []string) {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "eventpusher_feed_authority" {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() { // class, feed, host
				labels = append(labels, l.GetValue())
			}
			all = append(all, strings.Join(labels, "/")+"="+map[float64]string{0: "0", 1: "1"}[m.GetGauge().GetValue()])
		}
	}
	return all
}

// TestAuthorityEndsWithItsFeed: a server that comes back without the feed that counted is
// heard by another one, and what has changed is logged once and shown by the metric.
func TestAuthorityEndsWithItsFeed(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	j := New(Options{Component: "events.localhost", Forwarders: []string{"localhost"}, Hosts: []string{"localhost"}, Metrics: NewMetrics(reg), Log: slog.New(slog.NewTextHandler(&log, nil))})
	r := &rig{Judge: j, registry: reg, decoder: stanza.NewDecoder(stanza.Limits{})}
	at := when
	direct := func() bool {
		t.Helper()
		if err := r.decoder.Decode([]byte(`<message from='alice@localhost/r1' to='events.localhost'/>`), &r.env); err != nil {
			t.Fatal(err)
		}
		return j.Stanza(&r.env, at) != nil
	}
	j.Reconnected(at)
	j.Announced([]jid.JID{"localhost"}, at)
	at = at.Add(time.Hour) // however long it says nothing, it counts on this connection
	if direct() || len(j.Unheard(at)) > 0 {
		t.Error("the event-feed does not count on the connection on which it was heard")
	}
	j.Reconnected(at)
	at = at.Add(Patience - time.Second)
	if direct() || len(j.Unheard(at)) > 0 {
		t.Error("the event-feed had no time to be heard")
	}
	at = at.Add(time.Second)
	if diff := cmp.Diff([]jid.JID{"localhost"}, j.Unheard(at)); diff != "" {
		t.Error(diff)
	}
	want := []string{"message/event-feed/localhost=0", "offline/event-feed/localhost=0", "presence/event-feed/localhost=0"}
	if diff := cmp.Diff(want, r.authorityMetric(t)); diff != "" {
		t.Error(diff)
	}
	log.Reset()
	for range 2 {
		if !direct() {
			t.Error("nothing counts any more")
		}
	}
	want[0] = "message/direct/localhost=1"
	if diff := cmp.Diff(want, r.authorityMetric(t)); diff != "" {
		t.Error(diff)
	}
	if n := strings.Count(log.String(), "another one counts instead"); n != 1 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("logged %s", log.String())
	}
	j.Announced([]jid.JID{"localhost"}, at) // it is back
	if direct() || len(j.Unheard(at)) > 0 {
		t.Error("the event-feed does not count although it is back")
	}
	want[0] = "message/event-feed/localhost=1"
	for i := range want {
		want[i] = strings.Replace(want[i], "=0", "=1", 1)
	}
	if diff := cmp.Diff(want, r.authorityMetric(t)); diff != "" {
		t.Error(diff)
	}
}

// A configured feed is waited for: the operator has decided.
func TestConfiguredAuthorityStays(t *testing.T) {
	r := newRig([]string{"localhost"}, "event-feed")
	r.Reconnected(when.Add(-time.Hour))
	if got := r.classify(t, `<message from='alice@localhost/r1' to='events.localhost'/>`); got != "" {
		t.Errorf("%s counts", got)
	}
	if got := r.Unheard(when); len(got) != 1 {
		t.Errorf("%v are unheard", got)
	}
}

// TestComplaints: what a server sends in vain is logged with a remedy, once a minute, and
// what users send is not.
func TestComplaints(t *testing.T) {
	other := strings.ReplaceAll(chat, "localhost", "elsewhere.example")
	for _, tc := range []struct{ name, xml, want string }{
		{"a host that is not a forwarder", wrap("elsewhere.example", "events.localhost", chat), "not a forwarder"},
		{"a user who forwards", wrap("mallory@localhost/x", "events.localhost", chat), ""},
		{"a forwarder about other hosts", wrap("localhost", "events.localhost", other), "general.hosts"},
		{"a wrong address", wrap("localhost", "outt@events.localhost", chat), "docs/servers"},
		{"something else wrapped", wrap("localhost", "events.localhost", iqInside), "exactly one message"},
		{"privileges of a host that is not served", perms("elsewhere.example", "events.localhost", ""), "general.hosts"},
		{"privileges of a user", perms("mallory@localhost/x", "events.localhost", ""), ""},
		{"users of another host, while no host was ever heard", `<message from='a@elsewhere.example/r' to='events.localhost'/>`, "general.hosts"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			j := New(Options{Component: "events.localhost", Forwarders: []string{"localhost"}, Hosts: []string{"localhost"}, Log: slog.New(slog.NewTextHandler(&log, nil))})
			d := stanza.NewDecoder(stanza.Limits{})
			for _, at := range []time.Time{when, when.Add(warnEvery - 1)} {
				var env stanza.Envelope
				if err := d.Decode([]byte(tc.xml), &env); err != nil {
					t.Fatal(err)
				}
				j.Stanza(&env, at)
			}
			lines := strings.Count(log.String(), "\n")
			if tc.want == "" && lines > 0 || tc.want != "" && (lines != 1 || !strings.Contains(log.String(), tc.want)) {
				t.Errorf("logged %q, want one line with %q", log.String(), tc.want)
			}
		})
	}
}

// TestWarningsAreBounded: made-up names fill neither the log nor the memory, and do not keep
// others from being warned of later.
func TestWarningsAreBounded(t *testing.T) {
	var log bytes.Buffer
	j := New(Options{Component: "events.localhost", Log: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 4 * maxWarnings {
		j.Complain(when, strconv.Itoa(i), "component: made up", "none", "source", strings.Repeat("é", i))
	}
	if n := strings.Count(log.String(), "\n"); n != maxWarnings+1 || len(j.Complaints()) != n {
		t.Errorf("%d lines, %d complaints, want %d", n, len(j.Complaints()), maxWarnings+1)
	}
	if n := log.Len() / maxWarnings; n > 400 {
		t.Errorf("%d bytes a line", n)
	}
	j.Complain(when.Add(warnEvery), "another", "component: made up", "some")
	j.Warn(when.Add(warnEvery), "", "component: not listed")
	if got := j.Complaints(); len(got) != 1 || got[0] != (Complaint{"made up", "some"}) {
		t.Errorf("%d complaints after a minute, the first %v", len(got), got[0])
	}
	j.Reconnected(when)
	if got := j.Complaints(); len(got) != 0 {
		t.Errorf("%v of the connection before", got)
	}
}

// TestToldTwice: a message is known by its addresses, id and text, by whatever feed it comes;
// one without an id only if both tell of it at the same time.
func TestToldTwice(t *testing.T) {
	for _, tc := range []struct {
		name  string
		event string // attributes and text of the message that the event-feed reports
		after time.Duration
		twice bool
	}{
		{"the same", "id='1'><body>hi</body>", 0, true},
		{"the same, by a clock that is behind", "id='1'><body>hi</body>", -30 * time.Second, true},
		{"long after", "id='1'><body>hi</body>", time.Hour, false},
		{"another id", "id='2'><body>hi</body>", 0, false},
		{"another text", "id='1'><body>ho</body>", 0, false},
		{"without an id", "><body>hi</body>", 0, true},
		{"without an id, said again", "><body>hi</body>", 3 * time.Second, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig([]string{"localhost"})
			first := "id='1'><body>hi</body>"
			if strings.HasPrefix(tc.event, ">") {
				first = tc.event
			}
			const message = "<message xmlns='jabber:client' from='alice@localhost/r1' to='bob@localhost' "
			if r.classify(t, wrap("localhost", "events.localhost", message+first+"</message>")) == "" {
				t.Fatal("the first feed does not count")
			}
			report := fmt.Sprintf("<message from='localhost' to='events.localhost'><event xmlns='urn:eventpusher:feed:1' source='s' epoch='e' seq='%%d' kind='message-sent' user='alice@localhost/r1' t='%.3f'/>%s</message>",
				float64(when.Add(tc.after).UnixMilli())/1000, forward(message+tc.event+"</message>"))
			for n, seq := range []int{1, 1, 2} { // the first one comes again
				if err := r.decoder.Decode(fmt.Appendf(nil, report, seq), &r.env); err != nil {
					t.Fatal(err)
				}
				fact, v := r.Report(&r.env, when)
				if twice := tc.twice && seq == 1; twice != (fact == nil) || r.Authority("localhost", Messages) != EventFeed {
					t.Errorf("report %d is %v", n+1, verdictNames[v])
				}
			}
		})
	}
}

// Whatever names are made up for which a wildcard stands, few are remembered, logged and counted, and all are judged.
func TestWildcardsAreBounded(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	j := New(Options{Component: "events.example.org", Hosts: []string{"example.org", "*.example.org"}, Forwarders: []string{"*.example.org"},
		Metrics: NewMetrics(reg), Log: slog.New(slog.NewTextHandler(&log, nil))})
	r := &rig{Judge: j, registry: reg}
	for i := range maxHeard + 100 {
		host := jid.JID("h" + strconv.Itoa(i) + ".example.org")
		if !j.Serves(host) || !j.admit(host, Messages, ServiceLog, when) {
			t.Fatalf("%s does not count", host)
		}
	}
	if n := len(j.Status()); n != maxHeard {
		t.Errorf("%d hosts are remembered", n)
	}
	if n := len(r.authorityMetric(t)); n != maxHeard-1 { // example.org was not heard
		t.Errorf("%d series", n)
	}
	if n := strings.Count(log.String(), "feed established"); n != maxHeard-1 {
		t.Errorf("%d lines", n)
	}
	if j.Serves("events.example.org") || j.Serves("b.a.example.org") || j.Serves("example.net") {
		t.Error("a domain is served that is not")
	}
	j.Serve(Served{Hosts: []string{"example.org"}, Forwarders: []string{"example.org"}})
	if n := len(j.Status()); n != 1 || len(r.authorityMetric(t)) != 0 {
		t.Errorf("%d hosts after a reload, %q", n, r.authorityMetric(t))
	}
}
