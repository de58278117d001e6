package trust

import (
	"log/slog"
	"strings"
	"time"

	"eventpusher/internal/jid"
)

// complainEvery is how often one kind of stanza that does not count is logged.
const complainEvery = time.Minute

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

// Complaint is what a server sends in vain: a sentence, and what helps.
type Complaint struct{ Text, Remedy string }

// Complaints lists what was complained of on this connection. Any goroutine may call it.
func (j *Judge) Complaints() (list []Complaint) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for v := range numVerdicts {
		if host := j.vain[v]; host != "" {
			text := strings.TrimPrefix(complaints[v].text, "component: ")
			list = append(list, Complaint{text + " (last from " + host + ")", complaints[v].remedy})
		}
	}
	return list
}

// complain logs, at most once a minute for each verdict, that stanzas of a server do not
// count, and what helps.
func (j *Judge) complain(v Verdict, f Feed, from jid.JID, now time.Time) {
	c, ok := complaints[v]
	if !ok || now.Sub(j.complained[v]) < complainEvery {
		return
	}
	server := from.Local() == "" && from.IsBare() && from != ""
	if f == Direct && v == foreign {
		// A stranger's own stanza, unless no host of ours was ever heard.
		server = !server && j.authority.deaf()
	}
	if !server {
		return
	}
	j.complained[v] = now
	const most = 200
	host := strings.Clone(from.Domain())
	if len(host) > most {
		host = strings.ToValidUTF8(host[:most], "")
	}
	j.mu.Lock()
	j.vain[v] = host
	j.mu.Unlock()
	j.log.Warn(c.text, slog.String("host", host), slog.String("remedy", c.remedy))
}
