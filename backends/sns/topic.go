package sns

import (
	"strings"

	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// topics are the ARNs that events go to, empty where none is configured.
type topics struct {
	all               string // of everything
	presence, pm, muc string
	mucHosts          *jid.Domains // nil: rooms of every host
}

// newTopics builds the ARNs; hosts are what @HOST@ in muc_host stands for.
func newTopics(c *config.SNS, hosts []string) topics {
	t := topics{
		all:      topicARN(c, c.Topic),
		presence: topicARN(c, c.PresenceUpdatesTopic),
		pm:       topicARN(c, c.PMMessagesTopic),
		muc:      topicARN(c, c.MUCMessagesTopic),
	}
	if c.MUCHost != "" {
		rooms := []string{c.MUCHost}
		if strings.Contains(c.MUCHost, "@HOST@") {
			rooms = nil
			for _, host := range hosts {
				rooms = append(rooms, strings.ReplaceAll(c.MUCHost, "@HOST@", host))
			}
		}
		set := jid.NewDomains(rooms...)
		t.mucHosts = &set
	}
	return t
}

// of returns the topic for e, empty where none is configured (mod_event_pusher_sns.erl):
// one for what is about users, one for rooms, one for all other messages.
func (t *topics) of(e *event.Event) string {
	switch {
	case t.all != "":
		return t.all
	case e.Kind == event.UserStatus, e.Kind == event.Removed:
		return t.presence
	case e.Type != "groupchat":
		return t.pm
	case t.mucHosts == nil || t.mucHosts.Of(e.To) || t.mucHosts.Of(e.From):
		return t.muc
	}
	return ""
}

// topicARN returns the ARN of the topic of that name; a name that is an ARN
// already is taken as it is.
func topicARN(c *config.SNS, topic string) string {
	if topic == "" || strings.HasPrefix(topic, "arn:") {
		return topic
	}
	return "arn:" + partition(c.Region) + ":sns:" + c.Region + ":" + c.AccountID + ":" + topic
}

// partition returns the part of AWS that a region is in, which begins ARNs. MongooseIM always
// writes aws. The SDK knows it too, but tells nobody; a test compares.
func partition(region string) string {
	parts := strings.Split(region, "-")
	if len(parts) < 2 {
		return "aws"
	}
	isolated, isIsolated := strings.CutPrefix(parts[1], "iso")
	switch {
	case parts[0] == "cn", parts[0] == "eusc":
		return "aws-" + parts[0]
	case parts[1] == "gov":
		return "aws-us-gov"
	case isIsolated && isolated == "":
		return "aws-iso"
	case isIsolated:
		return "aws-iso-" + isolated
	}
	return "aws"
}

// isFIFO reports whether a topic keeps order; AWS tells it by the name.
func isFIFO(arn string) bool { return strings.HasSuffix(arn, ".fifo") }
