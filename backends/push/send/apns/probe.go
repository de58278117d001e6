package apns

import (
	"context"
	"net/http"
	"time"

	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
	"eventpusher/internal/finding"
)

// ProbeToken is the device token of what Probe sends: one that no device has.
const ProbeToken = "0000000000000000000000000000000000000000000000000000000000000000"

// Probe asks Apple, for each topic, to notify a device that does not exist. What it
// answers tells whether it knows us; nobody is notified. The findings are about subject.
func (s *Sender) Probe(ctx context.Context, subject string) []finding.Finding {
	provided, err := s.key.current()
	if err != nil {
		return []finding.Finding{finding.Failf(subject, "give the .p8 file that Apple hands out", "apns: no token can be made: %v", err)}
	}
	var list []finding.Finding
	for _, topic := range s.topics {
		header, body, err := s.request(&notify.Notification{ID: "probe", Time: time.Now(), Silent: true}, topic)
		if err != nil {
			return []finding.Finding{finding.Failf(subject, "", "apns: %v", err)}
		}
		answer, err := s.probe(ctx, header, provided, body)
		if err != nil {
			return []finding.Finding{s.client.Unanswered(ctx, subject, "apns", s.base, err)}
		}
		f, common := s.judge(subject, topic, answer)
		list = append(list, f)
		if common {
			break // the others would say the same
		}
	}
	return list
}

func (s *Sender) probe(ctx context.Context, header http.Header, provided string, body []byte) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, provider.ProbeTimeout)
	defer cancel()
	return s.post(ctx, s.base.JoinPath("3", "device", ProbeToken), header, provided, body)
}

// judge says what an answer to Probe means, and whether it is about all topics.
func (s *Sender) judge(subject, topic string, a *answer) (f finding.Finding, common bool) {
	said := a.Err(a.reason).Error()
	where := "apns (" + s.base.Host + ")"
	switch a.reason {
	case "BadDeviceToken", "DeviceTokenNotForTopic", "Unregistered", "ExpiredToken":
		if a.Status == http.StatusBadRequest || a.Status == http.StatusGone {
			return finding.Okf(subject, "%s takes key %s of team %s, and notifications for %s", where, s.key.id, s.key.team, topic), false
		}
	case "TopicDisallowed", "BadTopic", "MissingTopic":
		return finding.Failf(subject, "correct topics: each is the bundle id of an application of that team", "%s %s: team %s does not own topic %s", where, said, s.key.team, topic), false
	case "ExpiredProviderToken":
		return finding.Failf(subject, "set this machine's clock", "%s %s: a token made just now counts as older than an hour", where, said), true
	case "InvalidProviderToken", "MissingProviderToken":
		return finding.Failf(subject, "check that key_id and team_id are those of the key, that it was not revoked, and this machine's clock",
			"%s %s: key %s of team %s is not known", where, said, s.key.id, s.key.team), true
	case "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken":
		return finding.Failf(subject, "set sandbox as the key is meant, or make a key for both environments", "%s %s: key %s is for the other environment (sandbox or production)", where, said, s.key.id), true
	case "TooManyProviderTokenUpdates":
		return finding.Warnf(subject, "let no other program make tokens with this key", "%s %s: others use key %s as well; notifications wait for 5 minutes", where, said, s.key.id), true
	}
	switch {
	case a.Status == http.StatusOK:
		return finding.Warnf(subject, "correct url", "%s has taken a notification for a device that cannot exist, so it is not Apple", where), true
	case a.Status == http.StatusForbidden:
		return finding.Failf(subject, "check the key, its id, the team's id and the environments that the key is for", "%s %s", where, said), true
	case a.Status == http.StatusTooManyRequests || a.Status >= 500:
		return finding.Warnf(subject, "ask again later; notifications wait meanwhile", "%s %s", where, said), true
	}
	return finding.Failf(subject, "correct url: this is not what Apple says", "%s %s", where, said), true
}
