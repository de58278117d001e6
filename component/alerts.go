package component

import (
	"strings"
	"time"
)

// Alert is a feed that should be there and is not, or what a server sends in vain: a
// sentence, and what helps.
type Alert struct {
	Text   string `json:"text"`
	Remedy string `json:"remedy"`
	// Partial says that feeds are heard all the same. A node of a cluster that is gone for
	// good looks like this, and a host that is left out on purpose.
	Partial bool `json:"partial,omitempty"`
}

// alerts lists what is wrong with the feeds of a connection that has lasted for a while.
func (l *Link) alerts(now time.Time) (list []Alert) {
	names, all := l.sources.Missing(now)
	switch {
	case len(names) > 0 && all:
		list = append(list, Alert{
			Text:   "the event-feed is not heard any more: " + few(names) + " was there before, and has not introduced itself since the link was set up or does not answer any more",
			Remedy: "load the feed module again (Prosody event_feed, ejabberd mod_event_feed) and see the server's log",
		})
	case len(names) > 0:
		list = append(list, Alert{
			Text:   "a source of the event-feed has not come back: " + few(names),
			Remedy: "start that server again, or ignore this if it is gone for good", Partial: true,
		})
	}
	var unheard []string
	for _, host := range l.judge.Unheard(now) {
		unheard = append(unheard, string(host))
	}
	if len(unheard) > 0 && !(len(names) > 0 && all) {
		list = append(list, Alert{
			Text:   "the event-feed counts for " + few(unheard) + " and is not heard there",
			Remedy: "load the feed module on that host, or take event-feed out of [component] feeds",
		})
	}
	for _, c := range l.judge.Complaints() {
		list = append(list, Alert{Text: c.Text, Remedy: c.Remedy, Partial: true})
	}
	return list
}

// few lists some names.
func few(names []string) string {
	const most = 5
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}
