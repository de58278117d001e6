package fcm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
)

// The least pauses that Google asks for where it names none.
const (
	quotaPause       = time.Minute
	unavailablePause = 10 * time.Second
)

// failure is the error of an answer (google.rpc.Status).
type failure struct {
	Message string
	Status  string
	Details []struct {
		Type            string `json:"@type"`
		ErrorCode       string // of google.firebase.fcm.v1.FcmError
		FieldViolations []struct{ Field string }
	}
}

// answer is one of Google's, with what its body says.
type answer struct {
	*provider.Answer
	code       string // FCM's error code, else the status
	tokenFault bool   // the registration token is what is invalid
}

// read takes from a body what it tells, which is nothing when it is not Google's.
func read(got *provider.Answer) *answer {
	a := &answer{Answer: got}
	var says struct{ Error failure }
	if got.Status == http.StatusOK || json.Unmarshal(got.Body, &says) != nil {
		return a
	}
	a.code = says.Error.Status
	for _, d := range says.Error.Details {
		if strings.HasSuffix(d.Type, "google.firebase.fcm.v1.FcmError") && d.ErrorCode != "" {
			a.code = d.ErrorCode
			// FCM names no field here; this text has been the same since the API exists.
			a.tokenFault = a.tokenFault || strings.Contains(says.Error.Message, "registration token is not a valid")
		}
		for _, v := range d.FieldViolations {
			a.tokenFault = a.tokenFault || v.Field == "message.token"
		}
	}
	return a
}

// verdict is the table of Send.
func (a *answer) verdict() error {
	err := a.Err(a.code)
	switch {
	case a.Status == http.StatusBadRequest && a.tokenFault, a.Status == http.StatusNotFound && a.code == "UNREGISTERED":
		return &notify.DeadError{Err: err}
	case a.code == "THIRD_PARTY_AUTH_ERROR":
		return backends.Permanent(fmt.Errorf("%w: give the Firebase project its key for Apple or Web Push", err))
	case a.code == "SENDER_ID_MISMATCH":
		return backends.Permanent(fmt.Errorf("%w: the device registered with another Firebase project than the service account's", err))
	case a.Status == http.StatusUnauthorized:
		return backends.Paused(fmt.Errorf("%w: the access token is refused; check the service account and this machine's clock", err))
	case a.Status == http.StatusForbidden:
		return backends.Paused(fmt.Errorf("%w: let the service account send messages, and enable the Firebase Cloud Messaging API", err))
	case a.Status == http.StatusTooManyRequests:
		return backends.RetryAfter(max(backends.AskedPause(a.Header, a.At), quotaPause), err)
	case a.Status == http.StatusServiceUnavailable:
		pause := backends.AskedPause(a.Header, a.At)
		if pause == 0 {
			pause = unavailablePause
		}
		return backends.RetryAfter(pause, err)
	}
	return a.Verdict(err)
}
