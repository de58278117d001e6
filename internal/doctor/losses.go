package doctor

import (
	"context"
	"encoding/xml"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"eventpusher/component"
	"eventpusher/component/eventfeed"
	"eventpusher/feeds"
	"eventpusher/internal/finding"
)

// losses says which sources of the event-feed have given up events since the start.
func losses(sources []eventfeed.Status) []finding.Finding {
	var list []finding.Finding
	for _, s := range sources {
		var lost []string
		if s.LostEvents > 0 {
			lost = append(lost, fmt.Sprintf("dropped %s that were not taken in time", events(int(s.LostEvents))))
		}
		if s.UnknownLosses > 0 {
			lost = append(lost, fmt.Sprintf("came back %d times without the events that it had kept, as after a crash", s.UnknownLosses))
		}
		if len(lost) > 0 {
			list = append(list, finding.Warnf(s.Host, "keep eventpusher running, or raise the feed's buffer (Prosody event_feed_buffer_events, ejabberd buffer_events); a restart of eventpusher ends this warning",
				"since the start the source %s %s", printable(s.Name), strings.Join(lost, ", and ")))
		}
	}
	return list
}

// said is how a module of the event-feed tells its server and its revision in hello.
var said = regexp.MustCompile(`^(\w+) .*?(?:, mod_event_feed (\d+))?$`)

// outdated says which modules of the event-feed are older than those of this program. One
// that tells no revision is from before there were any.
func outdated(sources []eventfeed.Status) []finding.Finding {
	var list []finding.Finding
	for _, s := range sources {
		words := said.FindStringSubmatch(s.Server)
		if words == nil {
			continue
		}
		server := strings.ToLower(words[1])
		theirs, _ := strconv.Atoi(words[2])
		if ours := feeds.Revision(server); theirs < ours {
			list = append(list, finding.Warnf(s.Host, fmt.Sprintf("write the new one with eventpusher feed %s -out DIR, where DIR is where the old one is, and load it as docs/servers/%s.md says", server, server),
				"its mod_event_feed is older (revision %d) than that of this program (revision %d)", theirs, ours))
		}
	}
	return list
}

// clockLimit is how far two clocks may differ. A second of it is the rounding of XEP-0202.
const clockLimit = 10 * time.Second

// clock compares the host's clock with ours, if the host tells its time (XEP-0202): else
// nothing is found. What is delivered late, and push for old messages, depend on both.
func clock(ctx context.Context, link *component.Link, host string) []finding.Finding {
	asked := time.Now()
	reply, err := link.Request(ctx, component.Request{
		To: host, Type: component.Get, Payload: []byte("<time xmlns='urn:xmpp:time'/>"), Timeout: askTimeout,
	})
	if err != nil {
		return nil
	}
	var iq struct {
		Time struct {
			UTC time.Time `xml:"utc"`
		} `xml:"urn:xmpp:time time"`
	}
	if xml.Unmarshal(reply.Raw, &iq) != nil || iq.Time.UTC.IsZero() {
		return nil
	}
	// The answer was written between the question and now.
	ahead, behind := time.Until(iq.Time.UTC), asked.Sub(iq.Time.UTC)
	difference := ""
	switch {
	case ahead > clockLimit:
		difference = short(ahead) + " ahead of"
	case behind > clockLimit:
		difference = short(behind) + " behind"
	default:
		return nil
	}
	return []finding.Finding{finding.Warnf(host, "set the clocks of both machines, by NTP for example: push takes messages of the wrong age for too old, and events have wrong times",
		"its clock is %s ours", difference)}
}
