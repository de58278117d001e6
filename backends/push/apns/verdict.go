package apns

import (
	"fmt"
	"net/http"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
)

// updatesPause is how long to leave Apple alone after it has seen too many tokens.
const updatesPause = 5 * time.Minute

// answer is one of Apple's, with what its body says.
type answer struct {
	*provider.Answer
	reason    string
	timestamp int64 // ms since the epoch; 0: none
}

// verdict says what an answer means:
//
//	200                                  nil
//	400 BadDeviceToken                   dead, doubtful: also said to the other service's tokens
//	400 DeviceTokenNotForTopic           dead, doubtful: also said when topics name another application
//	400 TopicDisallowed, BadTopic,
//	    MissingTopic                     permanent: the key's account does not own the topic
//	400 IdleTimeout                      transient
//	400 others                           permanent: a defect of ours, or of data that is configured
//	403 ExpiredProviderToken             once more with another token, then paused
//	403 others                           paused: key id, team id, key or its environment are wrong
//	404 BadPath, 405 MethodNotAllowed    permanent
//	410 Unregistered, ExpiredToken       dead, since the timestamp
//	410 without such a reason            permanent: not from Apple
//	413 PayloadTooLarge                  too large
//	429 TooManyRequests                  transient: too many for this device
//	429 TooManyProviderTokenUpdates      after 5 minutes: others use the key as well
//	500, 503                             transient
//
// Retry-After counts wherever the result is transient.
func (a *answer) verdict() error {
	err := a.Err(a.reason)
	switch a.reason {
	case "BadDeviceToken":
		return &notify.DeadError{Doubtful: true, Err: err}
	case "DeviceTokenNotForTopic":
		return &notify.DeadError{Doubtful: true, Err: err}
	case "Unregistered", "ExpiredToken":
		if a.Status == http.StatusGone {
			dead := &notify.DeadError{Err: err}
			if a.timestamp > 0 {
				dead.Since = time.UnixMilli(a.timestamp)
			}
			return dead
		}
	case "TopicDisallowed", "BadTopic", "MissingTopic":
		return backends.Permanent(fmt.Errorf("%w: the key's account does not own the topic; check topics", err))
	case "IdleTimeout":
		return err
	case "TooManyProviderTokenUpdates":
		return backends.RetryAfter(max(backends.AskedPause(a.Header, a.At), updatesPause), err)
	}
	if a.Status == http.StatusForbidden {
		err = fmt.Errorf("%w: check the key, its id, the team's id and the environments that the key is for", err)
	}
	return a.Verdict(err)
}
