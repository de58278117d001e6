package doctor

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"eventpusher/backends/push/notify"
	"eventpusher/component"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/finding"
	"eventpusher/internal/jid"
)

const (
	// askTimeout bounds each question to the server.
	askTimeout = 4 * time.Second
	// subjectServer is the link itself in findings.
	subjectServer = "server"
)

// replacedLately is how long it is said that another connection has replaced ours: two
// instances take turns, and one of them is attached whenever doctor asks.
const replacedLately = 10 * time.Minute

// Server examines the link to the XMPP server and what comes over it: the handshake,
// whether the server routes what we send, each host, its feeds and what it has granted.
// listened is for how long the feeds had the chance to be heard; offered is as for Push.
func Server(ctx context.Context, link *component.Link, cfg *config.Config, listened time.Duration, offered func(host jid.JID) bool) []finding.Finding {
	s := link.Status()
	if s.State != component.Connected {
		text := "not attached to " + s.Address
		if s.LastError != "" {
			text = s.LastError
		}
		return []finding.Finding{finding.Failf(subjectServer, "", "%s", text)}
	}
	name, hosts := cfg.Component.Name, known(cfg, s.Hosts)
	list := []finding.Finding{finding.Okf(subjectServer, "attached to %s as %s", s.Address, s.Name)}
	if s.LastErrorReason == component.Conflict && time.Since(s.Since) < replacedLately {
		list = append(list, finding.Warnf(subjectServer, "", "attached again since %s; before: %s", s.Since.UTC().Format(time.RFC3339), s.LastError))
	}
	list = append(list, missing(s.Alerts)...)
	list = append(list, ask(ctx, link, name, hosts)...)
	for _, h := range link.Status().Hosts {
		if slices.ContainsFunc(hosts, func(host string) bool { return strings.EqualFold(host, h.Host) }) {
			list = append(list, hostFeeds(h, name, listened, offered)...)
		}
	}
	list = append(list, outdated(link.Status().Sources)...)
	return append(list, losses(link.Status().Sources)...)
}

// known returns the served hosts: those with a name, and those that were heard and that a wildcard of
// the configuration stands for.
func known(cfg *config.Config, heard []trust.HostStatus) []string {
	served, named := jid.NewDomains(cfg.Served()...), jid.Named(cfg.General.Hosts)
	list := slices.Clone(named)
	for _, h := range heard {
		if served.Has(jid.JID(h.Host)) && !jid.NewDomains(named...).Has(jid.JID(h.Host)) {
			list = append(list, h.Host)
		}
	}
	return list
}

// missing says which feeds should be there and are not.
func missing(alerts []component.Alert) (list []finding.Finding) {
	for _, a := range alerts {
		level := finding.Failf
		if a.Partial {
			level = finding.Warnf
		}
		list = append(list, level(subjectServer, a.Remedy, "%s", a.Text))
	}
	return list
}

// ask asks the server and its hosts whether they answer, and what they are.
func ask(ctx context.Context, link *component.Link, name string, hosts []string) []finding.Finding {
	answers := make([][]finding.Finding, 1+2*len(hosts))
	answered := make([]bool, 1+len(hosts))
	var asking sync.WaitGroup
	asking.Go(func() {
		f, ok := roundTrip(ctx, link, name)
		answers[0], answered[0] = []finding.Finding{f}, ok
	})
	for i, host := range hosts {
		asking.Go(func() {
			f, ok := askHost(ctx, link, host)
			answers[1+2*i], answered[1+i] = []finding.Finding{f}, ok
		})
		asking.Go(func() { answers[2+2*i] = clock(ctx, link, host) })
	}
	asking.Wait()
	heard := slices.ContainsFunc(link.Status().Hosts, func(h trust.HostStatus) bool { return len(h.Heard) > 0 })
	if heard && ctx.Err() == nil && !slices.Contains(answered, true) {
		return []finding.Finding{finding.Failf(subjectServer, "on ejabberd, remove mod_privilege, or grant this component a privilege and run ejabberd 25.03 or later; "+
			"from 24.10 on it can drop each request of a component to an address without a resource",
			"feeds are heard, and the server answers none of our requests")}
	}
	return slices.Concat(answers...)
}

// roundTrip sends requests to ourselves, which the server routes back to us, and the
// answers again. IQs are used because they can never be an event; Prosody and ejabberd
// route them as they route what users send us. ejabberd shares them out at random if
// another program is attached under the same name, so several are sent. Each crosses twice, so
// that a quarter of them come back then: none of 16 in 1 of 100 cases, and all never.
func roundTrip(ctx context.Context, link *component.Link, name string) (f finding.Finding, answered bool) {
	const probes = 16
	began := time.Now()
	failures := make(chan error, probes)
	for i := range probes {
		go func() {
			_, err := link.Request(ctx, component.Request{
				To: name, From: fmt.Sprintf("%s/doctor%d", name, i), Type: component.Get, Payload: []byte("<ping xmlns='urn:xmpp:ping'/>"), Timeout: askTimeout,
			})
			failures <- err
		}()
	}
	lost, why := 0, ""
	for range probes {
		if err := <-failures; err != nil {
			lost, why = lost+1, describe(err)
		}
	}
	switch lost {
	case 0:
		return finding.Okf(subjectServer, "test stanzas went through the server to ourselves and back in %s", short(time.Since(began))), true
	case probes:
		return finding.Warnf(subjectServer, "if another program is attached as "+name+", stop it; else look into the server's log for why it does not route stanzas from and to this name",
			"test stanzas to ourselves did not come back (%s)", why), false
	}
	return finding.Warnf(subjectServer, "stop the other program that is attached as "+name+": ejabberd shares the stanzas out between the two, and each loses what the other gets",
		"%d of %d test stanzas to ourselves did not come back (%s)", lost, probes, why), true
}

// askHost asks a host what it is. Any answer of its own shows that the server serves
// it; the conditions below are those of servers for hosts that they do not serve.
func askHost(ctx context.Context, link *component.Link, host string) (f finding.Finding, answered bool) {
	const remedy = "correct [general] hosts, or declare the host in the server"
	reply, err := link.Request(ctx, component.Request{
		To: host, Type: component.Get, Payload: []byte("<query xmlns='jabber:iq:version'/>"), Timeout: askTimeout,
	})
	var refused *component.StanzaError
	switch {
	case errors.As(err, &refused):
		switch refused.Condition {
		case "remote-server-not-found", "remote-server-timeout", "not-allowed", "forbidden", "item-not-found", "policy-violation":
			return finding.Failf(host, remedy, "the server does not serve this host, or does not let us speak to it (%s)", refused.Condition), true
		}
		return finding.Okf(host, "is served"), true
	case err != nil:
		return finding.Failf(host, remedy, "does not answer (%s)", describe(err)), false
	}
	var iq struct {
		Query struct {
			Name    string `xml:"name"`
			Version string `xml:"version"`
		} `xml:"jabber:iq:version query"`
	}
	if xml.Unmarshal(reply.Raw, &iq) != nil || iq.Query.Name == "" {
		return finding.Okf(host, "is served"), true
	}
	return finding.Okf(host, "is served by %s", printable(iq.Query.Name+" "+iq.Query.Version)), true
}

// hostFeeds says which dialects report what of a host, and what the host has granted.
func hostFeeds(h trust.HostStatus, name string, listened time.Duration, offered func(host jid.JID) bool) []finding.Finding {
	list := []finding.Finding{heard(h, name, listened)}
	text := "privileges granted: " + listed(h.Privileges) + "; namespaces delegated: " + listed(h.Delegated)
	if !slices.Contains(h.Delegated, notify.NS) && offered != nil && offered(jid.JID(h.Host)) {
		text += "; offered to us: " + notify.NS
	}
	return append(list, finding.Okf(h.Host, "%s", text))
}

// heard says which feeds of a host were heard, and what they report. That a feed has not
// reported a class of facts yet is wrong only if it never will: nothing may have happened.
func heard(h trust.HostStatus, name string, listened time.Duration) finding.Finding {
	const remedy = "set a feed up as docs/servers/prosody.md or docs/servers/ejabberd.md say, and look at eventpusher_stanzas_total"
	if len(h.Heard) == 0 {
		return finding.Warnf(h.Host, "mod_event_feed greets at once: if it is loaded, see whether its option (Prosody event_feed_component, ejabberd component) is "+
			name+"; if the host's users are active, "+remedy, "no feed was heard in %s", short(listened))
	}
	var known, unknown []string
	for _, c := range []trust.Class{trust.Messages, trust.Presence, trust.Offline} {
		if by := h.Authority[c]; by != "" {
			known = append(known, c.String()+" by "+by)
		} else {
			unknown = append(unknown, c.String())
		}
	}
	feeds := strings.Join(h.Heard, ", ")
	if len(known) == 0 {
		return finding.Failf(h.Host, "correct [component] feeds: it lists none of these", "heard: %s; but no event is made of it", feeds)
	}
	text := "heard: " + feeds + "; counted: " + strings.Join(known, ", ")
	if len(unknown) > 0 {
		text += "; nothing about " + strings.Join(unknown, ", ") + " in " + short(listened)
	}
	if h.Authority[trust.Messages] == "" && slices.Equal(h.Heard, []string{"privilege"}) {
		return finding.Warnf(h.Host, "privilege never reports messages; if they are to make events, "+remedy, "%s", text)
	}
	return finding.Okf(h.Host, "%s", text)
}

// listed lists names that a server has given.
func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return printable(strings.Join(names, ", "))
}

// describe says in a few words why a question was not answered.
func describe(err error) string {
	var refused *component.StanzaError
	switch {
	case errors.As(err, &refused):
		return refused.Condition
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s", askTimeout)
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	return strings.TrimPrefix(err.Error(), "component: ")
}

// short rounds a duration for people.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// maxPrinted bounds what is printed of what a server says.
const maxPrinted = 200

// printable makes a server's words fit for one line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.TrimSpace(s))
	if len(s) > maxPrinted {
		s = strings.ToValidUTF8(s[:maxPrinted], "") + "..."
	}
	return s
}
