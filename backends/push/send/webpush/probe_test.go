package webpush

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"eventpusher/internal/finding"
)

// TestProbe asks nobody: it is about the key, and about the hosts that are allowed.
func TestProbe(t *testing.T) {
	_, s := start(t, func(o *Options) { o.Guard = newGuard(t, []string{"127.0.0.1", "known.example", "unknown.example"}) })
	s.guard.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if host == "known.example" {
			return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
		}
		return nil, errors.New("no such host")
	}
	list := s.Probe(t.Context(), "push")
	if len(list) != 2 || list[0].Level != finding.OK || !strings.Contains(list[0].Text, s.vapid.PublicKey()) || !strings.Contains(list[0].Text, subject) ||
		list[1].Level != finding.Warn || !strings.Contains(list[1].Text, "unknown.example") {
		t.Error(list)
	}
	_, s = start(t, func(o *Options) { o.VAPID = nil })
	if list := s.Probe(t.Context(), "push"); len(list) != 1 || list[0].Level != finding.Warn || !strings.Contains(list[0].String(), "vapid_key_file") {
		t.Error(list)
	}
}
