package webpush

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"eventpusher/internal/finding"
)

// Probe checks what can be checked without a subscription: there is no one provider to
// ask, since each browser brings its own. The findings are about subject.
func (s *Sender) Probe(ctx context.Context, subject string) []finding.Finding {
	list := []finding.Finding{s.identity(subject)}
	for _, host := range slices.Sorted(maps.Keys(s.guard.hosts)) {
		if _, err := netip.ParseAddr(host); err == nil {
			continue
		}
		if _, err := s.guard.lookup(ctx, "ip", host); err != nil {
			list = append(list, finding.Warnf(subject, "correct allow, or the DNS", "webpush: the host %s, which allow names, is not found", host))
		}
	}
	return list
}

// identity says who push services see.
func (s *Sender) identity(subject string) finding.Finding {
	if s.vapid == nil {
		return finding.Warnf(subject, "make a key and give it as vapid_key_file, with subject", "webpush: there is no VAPID key, without which browsers take no subscription; only UnifiedPush works")
	}
	if _, err := s.vapid.sign("https://push.example", time.Now()); err != nil {
		return finding.Failf(subject, "give another VAPID key", "webpush: the VAPID key does not sign: %v", err)
	}
	return finding.Okf(subject, "webpush: the VAPID key signs for %s; its public key, applicationServerKey, is %s", s.vapid.subject, s.vapid.public)
}
