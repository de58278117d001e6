package config

import "testing"

func TestAuthority(t *testing.T) {
	for _, tc := range []struct {
		name                       string
		feeds                      []string
		message, presence, offline string
	}{
		{"nothing listed", nil, "", "", ""},
		{"one", []string{"direct"}, "direct", "direct", "direct"},
		{"the best, whatever the order", []string{"direct", "firewall"}, "firewall", "firewall", "firewall"},
		{"privilege reports no messages", []string{"privilege", "direct"}, "direct", "privilege", "privilege"},
		{"and nothing else does", []string{"privilege"}, NoFeed, "privilege", "privilege"},
		{"a class of its own, the rest as heard", []string{"direct:offline"}, "", "", "direct"},
		{"a class of its own, and all the others", []string{"service_log", "direct:offline"}, "service_log", "service_log", "direct"},
	} {
		c := Component{Feeds: tc.feeds}
		if m, p, o := c.Authority("message"), c.Authority("presence"), c.Authority("offline"); m != tc.message || p != tc.presence || o != tc.offline {
			t.Errorf("%s: messages by %q, presence by %q, offline by %q", tc.name, m, p, o)
		}
	}
}
