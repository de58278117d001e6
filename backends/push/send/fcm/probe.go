package fcm

import (
	"context"
	"errors"
	"net/http"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/internal/finding"
)

// ProbeToken is the registration token of what Probe sends: none of Google's.
const ProbeToken = "eventpusher-doctor"

// Probe asks Google for an access token, and whether a message to a device that does not
// exist would be taken (validate_only). Nobody is notified. The finding is about subject.
func (s *Sender) Probe(ctx context.Context, subject string) []finding.Finding {
	short, cancel := context.WithTimeout(ctx, provider.ProbeTimeout)
	defer cancel()
	access, err := s.account.access(short, "")
	if err != nil {
		return []finding.Finding{s.noAccess(ctx, subject, err)}
	}
	body, err := provider.JSON(struct {
		ValidateOnly bool     `json:"validate_only"`
		Message      *message `json:"message"`
	}{true, &message{Token: ProbeToken, Android: &android{Priority: "NORMAL", TTL: "0s"}}})
	if err != nil {
		return []finding.Finding{finding.Failf(subject, "", "fcm: %v", err)}
	}
	answer, err := s.post(short, access, body)
	if err == nil && answer.Status == http.StatusUnauthorized && answer.code != "THIRD_PARTY_AUTH_ERROR" {
		// One that was kept may have been revoked, as in Send.
		if access, err = s.account.access(short, access); err != nil {
			return []finding.Finding{s.noAccess(ctx, subject, err)}
		}
		answer, err = s.post(short, access, body)
	}
	if err != nil {
		return []finding.Finding{s.client.Unanswered(ctx, subject, "fcm", s.target, err)}
	}
	return []finding.Finding{s.judge(subject, answer)}
}

// noAccess says why no access token was given.
func (s *Sender) noAccess(ctx context.Context, subject string, err error) finding.Finding {
	if errors.As(err, new(*backends.PausedError)) {
		return finding.Failf(subject, "make a new key for the service account in the Firebase console, under Service accounts, and set this machine's clock",
			"fcm: %v", err)
	}
	if errors.As(err, new(*tokenError)) {
		return finding.Warnf(subject, "ask again later; notifications wait meanwhile", "fcm: %v", err)
	}
	return s.account.client.Unanswered(ctx, subject, "fcm, for an access token", s.account.target, err)
}

// judge says what an answer to Probe means.
func (s *Sender) judge(subject string, a *answer) finding.Finding {
	said, where := a.Err(a.code).Error(), "fcm ("+s.target.Host+")"
	switch {
	case a.Status == http.StatusOK, a.Status == http.StatusBadRequest && (a.tokenFault || a.code == "INVALID_ARGUMENT"),
		a.Status == http.StatusNotFound && a.code == "UNREGISTERED", a.code == "SENDER_ID_MISMATCH":
		// To a token that is none there is no better answer.
		return finding.Okf(subject, "%s takes messages of service account %s for project %s", where, s.account.email, s.account.project)
	case a.Status == http.StatusUnauthorized:
		return finding.Failf(subject, "check the service account and this machine's clock", "%s %s: the access token is refused", where, said)
	case a.Status == http.StatusForbidden:
		return finding.Failf(subject, "give the service account the role Firebase Cloud Messaging API Admin, and enable the Firebase Cloud Messaging API (V1) for the project",
			"%s %s: service account %s may not send in project %s", where, said, s.account.email, s.account.project)
	case a.Status == http.StatusNotFound:
		return finding.Failf(subject, "give the service account of a project that exists, and correct url where it is set", "%s %s: there is no project %s", where, said, s.account.project)
	case a.Status == http.StatusTooManyRequests || a.Status >= 500:
		return finding.Warnf(subject, "ask again later; notifications wait meanwhile", "%s %s", where, said)
	}
	return finding.Failf(subject, "correct url: this is not what Google says", "%s %s", where, said)
}
