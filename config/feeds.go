package config

import (
	"fmt"
	"slices"
	"strings"
)

// feedNames are the dialects of docs/servers, best first, and feedClasses the classes of
// fact that an entry of [component] feeds can be bound to.
func feedNames() []string {
	return []string{"event-feed", "service_log", "firewall", "privilege", "direct"}
}

func feedClasses() []string { return []string{"message", "presence", "offline"} }

// isFeed checks one entry: a dialect, or dialect:class.
func isFeed(s string) *complaint {
	name, class, bound := strings.Cut(s, ":")
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
		name, class, bound := strings.Cut(entry, ":")
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
