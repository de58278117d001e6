package loopback_test

import (
	"testing"

	"eventpusher/internal/loopback"
)

func TestHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost": true, "localhost.": true,
		"127.0.0.1": true, "127.255.0.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, ".": false, "localhost..": false, "localhost.evil.example": false, "localhost.localdomain": false,
		"0.0.0.0": false, "::": false, "128.0.0.1": false, "::ffff:192.0.2.1": false, "127.1": false, "[::1]": false,
		"localhost:80": false, "127.0.0.1:80": false, "127.0.0.1.": false, "xmpp.example.org": false,
	} {
		if got := loopback.Host(host); got != want {
			t.Errorf("Host(%q) = %t", host, got)
		}
	}
}
