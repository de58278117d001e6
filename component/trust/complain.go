package trust

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"eventpusher/internal/jid"
)

// warnEvery is how often the same warning is logged. Of maxWarnings, all further ones with
// the same message are the same: a server can make up any number of names.
const (
	warnEvery   = time.Minute
	maxWarnings = 512
)

// Complaint is what a server sends in vain: a sentence, and what helps.
type Complaint struct{ Text, Remedy string }

// warnings are logged at most once in warnEvery each, and listed for one connection. They
// are safe for concurrent use.
type warnings struct {
	log *slog.Logger

	mu    sync.Mutex
	given map[string]*warning
}

type warning struct {
	Complaint
	logged time.Time
}

// forget makes each warning be logged anew.
func (w *warnings) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given = make(map[string]*warning)
}

// Warn logs a warning at most once a minute for what it is about; about may be empty. attrs
// are keys and values as slog takes them; long values are shortened. Any goroutine may call
// it; it does not block.
func (w *warnings) Warn(now time.Time, about, message string, attrs ...any) {
	w.Complain(now, about, message, "", attrs...)
}

// Complain is Warn about what an operator can mend: remedy says how, and Complaints lists it.
func (w *warnings) Complain(now time.Time, about, message, remedy string, attrs ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := message + about
	if w.given[key] == nil && len(w.given) >= maxWarnings {
		maps.DeleteFunc(w.given, func(_ string, g *warning) bool { return now.Sub(g.logged) >= warnEvery })
		if len(w.given) >= maxWarnings {
			key = message
		}
	}
	g := w.given[key]
	if g == nil {
		g = new(warning)
		w.given[key] = g
	}
	if now.Sub(g.logged) < warnEvery {
		return
	}
	*g = warning{Complaint{strings.TrimPrefix(message, "component: "), remedy}, now}
	for i := 0; i+1 < len(attrs); i += 2 {
		attrs[i+1] = Shortened(fmt.Sprint(attrs[i+1]))
		g.Text += fmt.Sprintf(", %s %s", attrs[i], attrs[i+1])
	}
	if remedy != "" {
		attrs = append(attrs, "remedy", remedy)
	}
	w.log.Warn(message, attrs...)
}

// Complaints lists what was complained of on this connection. Any goroutine may call it.
func (w *warnings) Complaints() (list []Complaint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.given {
		if g.Remedy != "" {
			list = append(list, g.Complaint)
		}
	}
	slices.SortFunc(list, func(a, b Complaint) int { return strings.Compare(a.Text, b.Text) })
	return list
}

// Shortened bounds what a peer says about itself.
func Shortened(text string) string {
	const most = 200
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// complaints are what is logged of stanzas that a server, or somebody on it, sends in vain.
// A user's own stanzas are only counted: any user can send them.
var complaints = map[Verdict]struct{ text, remedy string }{
	untrustedForward: {"component: a host forwards stanzas and is not a forwarder, they are left out",
		"if the host belongs to your server, list it in component.forwarders, and in general.hosts if its users are to count"},
	untrustedFeed: {"component: a host sends elements of the event-feed and is not a forwarder, they are left out",
		"if the host belongs to your server, list it in general.hosts or component.forwarders"},
	untrustedPriv: {"component: a host grants privileges and is not a served host, they are left out",
		"if the host belongs to your server, list it in general.hosts"},
	foreign: {"component: what a host reports is about users of other hosts than those in general.hosts, it is left out",
		"list the hosts of your server in general.hosts, and those of its rooms in component.muc_hosts"},
	misaddressed: {"component: a host sends stanzas to an address of ours that means nothing, they are left out",
		"see docs/servers for the addresses that the server's rules or forwarding may use"},
	Untranslatable: {"component: a wrapper of a forwarder does not hold exactly one message or presence, it is left out",
		"see docs/servers for the modules that forward stanzas as they are"},
}

// complain warns that stanzas of a server do not count, and says what helps.
func (j *Judge) complain(v Verdict, f Feed, from jid.JID, now time.Time) {
	c, ok := complaints[v]
	if !ok {
		return
	}
	server := from.Local() == "" && from.IsBare() && from != ""
	if f == Direct && v == foreign {
		// A stranger's own stanza, unless no host of ours was ever heard.
		server = !server && j.deaf()
	}
	if server {
		j.Complain(now, "", c.text, c.remedy, "host", from.Domain())
	}
}
