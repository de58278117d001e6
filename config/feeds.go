package config

import (
	"fmt"
	"slices"
	"strings"
)

// feedNames are the feeds of docs/servers, best first, and feedClasses the classes of
// fact that an entry of [component] feeds can be bound to.
func feedNames() []string {
	return []string{"event-feed", "service_log", "firewall", "privilege", "direct"}
}

func feedClasses() []string { return []string{"message", "presence", "offline"} }

// feedEntry reads one entry: a feed, or feed:class.
func feedEntry(s string) (name, class string, bound bool) { return strings.Cut(s, ":") }

// NoFeed is what Authority returns if feeds are listed and none of them can report the
// class.
const NoFeed = "none"

// Authority returns the feed that is to count for a class of fact: message, presence or
// offline. It is empty if the list leaves that to the feeds that are heard, and NoFeed if
// nothing is to count. An entry without a class is about all classes that no entry with a
// class names. Of several feeds the best counts.
func (c *Component) Authority(class string) string {
	var own, general []string
	for _, entry := range c.Feeds {
		switch name, of, bound := feedEntry(entry); {
		case !bound:
			general = append(general, name)
		case of == class:
			own = append(own, name)
		}
	}
	listed := own
	if len(own) == 0 {
		listed = general
	}
	for _, name := range feedNames() {
		if slices.Contains(listed, name) && !(name == "privilege" && class == "message") {
			return name
		}
	}
	if len(listed) > 0 {
		return NoFeed
	}
	return ""
}

// isFeed checks one entry.
func isFeed(s string) *complaint {
	name, class, bound := feedEntry(s)
	names := strings.Join(feedNames(), ", ")
	switch {
	case !slices.Contains(feedNames(), name):
		return &complaint{fmt.Sprintf("%q is not known", clip(s)),
			"write one of " + names + `, or one of them for one class of fact, such as "direct:offline"`}
	case bound && !slices.Contains(feedClasses(), class):
		return &complaint{fmt.Sprintf("%q names no class of fact behind the colon", clip(s)),
			"write one of " + strings.Join(feedClasses(), ", ") + ` there, such as "` + name + `:offline"`}
	case name == "privilege" && class == "message":
		return &complaint{`"privilege:message" can never be: privilege reports presence only`,
			"give messages to event-feed, service_log, firewall or direct"}
	}
	return nil
}

// feeds checks the entries together.
func (l *loader) feeds(entries []string) {
	l.unique("component.feeds", entries)
	owner := make(map[string]string)
	for _, entry := range entries {
		name, class, bound := feedEntry(entry)
		if !bound {
			continue
		}
		if before, taken := owner[class]; taken && before != name {
			l.errorf("component.feeds", "gives "+class+" to both "+before+" and "+name,
				"a fact counts from one feed only: remove "+quote(before+":"+class)+" or "+quote(entry))
			return
		}
		owner[class] = name
	}
}
