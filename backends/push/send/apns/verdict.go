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

// verdict is the table of Send.
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
	case "TooManyRequests": // for this device, which says nothing of others
		return backends.Elsewhere(a.Verdict(err))
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
