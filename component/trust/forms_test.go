package trust

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestFormsOfDomains hears servers that write their domains otherwise than the configuration
// does: what they say counts, and is told of under the configured names.
func TestFormsOfDomains(t *testing.T) {
	for _, tc := range []struct {
		name, configured, written, status string
		trusted                           bool
	}{
		{"A-label for Unicode", "bücher.example", "xn--bcher-kva.example", "bücher.example", true},
		{"Unicode for an A-label", "xn--bcher-kva.example", "bücher.example", "xn--bcher-kva.example", true},
		{"composed for decomposed", "bu\u0308cher.example", "bücher.example", "bücher.example", true},
		{"decomposed for composed", "bücher.example", "bu\u0308cher.example", "bücher.example", true},
		{"without the final dot", "BÜCHER.example.", "bücher.example", "bücher.example", true},
		{"with a final dot", "bücher.example", "bücher.example.", "bücher.example", false},
		{"ASCII with a final dot", "example.org", "example.org.", "example.org", false},
		{"fullwidth letters", "example.org", "ｅxample.org", "example.org", false},
		{"another domain", "bücher.example", "bucher.example", "bücher.example", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig([]string{tc.configured})
			here := func(xml string) string { return strings.ReplaceAll(xml, "localhost", tc.written) }
			to := "events.localhost"
			heard := r.classify(t, wrap(tc.written, to, here(chat))) != ""
			room := r.classify(t, wrap("conference."+tc.written, to, here(strings.Replace(chat, "alice@", "tea@conference.", 1)))) != ""
			r.classify(t, perms(tc.written, to, ""))
			granted := r.classify(t, strings.Replace(here(online), "/>", " to='"+to+"'/>", 1)) != ""
			if heard != tc.trusted || room != tc.trusted || granted != tc.trusted {
				t.Errorf("counts: wrapper %v, of the rooms %v, privilege %v; want %v", heard, room, granted, tc.trusted)
			}
			want := []HostStatus{{Host: tc.status, Authority: map[Class]string{}, Since: map[Class]time.Time{}, Heard: []string{}}}
			if tc.trusted {
				want[0].Authority = map[Class]string{Messages: "service_log", Presence: "privilege", Offline: "privilege"}
				want[0].Since = map[Class]time.Time{Messages: when, Presence: when, Offline: when}
				want[0].Heard = []string{"service_log", "privilege"}
				want[0].Privileges = []string{"presence managed_entity"}
			}
			if diff := cmp.Diff(want, r.Status()); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
		})
	}
}
