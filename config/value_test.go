package config

import (
	"math"
	"testing"
)

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Size
		ok   bool
	}{
		{"0B", 0, true},
		{"1B", 1, true},
		{"64KiB", 64 << 10, true},
		{"4MiB", 4 << 20, true},
		{"4 MiB", 4 << 20, true},
		{"10GiB", 10 << 30, true},
		{"1TiB", 1 << 40, true},
		{"9223372036854775807B", math.MaxInt64, true},
		{"9223372036854775808B", 0, false},
		{"8388608TiB", 0, false},
		{"", 0, false},
		{"4", 0, false},
		{"MiB", 0, false},
		{"-1MiB", 0, false},
		{"1.5MiB", 0, false},
		{"4MB", 0, false},
		{"4mib", 0, false},
	} {
		if got, ok := parseSize(tt.text); got != tt.want || ok != tt.ok {
			t.Errorf("parseSize(%q) = %d, %v, want %d, %v", tt.text, got, ok, tt.want, tt.ok)
		}
		if tt.ok {
			if back, ok := parseSize(tt.want.String()); back != tt.want || !ok {
				t.Errorf("%d is written %q, which is read as %d", tt.want, tt.want, back)
			}
		}
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"address", "name", "secret", "secret_file", "tls", "max_depth"}
	for _, tt := range []struct{ word, want string }{
		{"secrett", "secret"},
		{"adress", "address"},
		{"addresS", "address"},
		{"nmae", "name"},
		{"Secret", "secret"},
		{"secretfile", "secret_file"},
		{"maxdepth", "max_depth"},
		{"password", ""},
		{"xyz", ""},
		{"", ""},
	} {
		if got := nearest(tt.word, keys); got != tt.want {
			t.Errorf("nearest(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"abc", "abc", 0}, {"abc", "ab", 1}, {"ab", "abc", 1}, {"abc", "axc", 1}, {"abc", "acb", 1}, {"abcd", "badc", 2}, {"kitten", "sitting", 3}, {"a", "bcdef", 5},
	} {
		if got := distance(tt.a, tt.b, 100); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		judge check
		good  []string
		bad   []string
	}{
		{
			"domain", isDomain,
			[]string{"example.org", "localhost", "Example.ORG.", "bücher.example", "192.0.2.1", "[2001:db8::1]", "xn--bcher-kva.example", "a_b.example"},
			[]string{"", ".", "a..b", "user@example.org", "example.org/res", "a b", "exa\x00mple", "[2001:db8::1", "[x]", "http://example.org", "@HOST@", "\xff.example"},
		},
		{"pattern", isDomainPattern, []string{"conference.@HOST@", "@HOST@", "rooms.example.org"}, []string{"conference.@HOSTS@", "conference.@host@", ""}},
		{"pubsub host", isPubsubHost, []string{"pubsub.@HOST@", "host1", "a.b.@HOST@"}, []string{"@HOST@", "pubsub.@HOSTS@", "pubsub@HOST@", "@HOST@.pubsub", ""}},
		{
			"http host", isHTTPHost,
			[]string{"http://localhost", "https://example.org:8443", "http://[::1]:80/", "http://10.0.0.1"},
			[]string{"", "localhost", "ftp://localhost", "http://", "http://host/path", "http://host?q", "http://host:0", "http://host:99999", "http://user:pass@host", "http://a b"},
		},
		{
			"sns host", isServiceHost,
			[]string{"sns.eu-west-1.amazonaws.com", "localhost", "localhost:4566", "[::1]:4566", "http://localhost:4566/path", "https://sns.example.org"},
			[]string{"", "a b", "host:port", "host/path", "ftp://host", "https://", "https://user@host"},
		},
		{"dial", isDialAddress, []string{"localhost:5347", "[::1]:5347", "192.0.2.1:1"}, []string{"", "localhost", ":5347", "localhost:0", "localhost:70000", "a b:1", "::1:5347"}},
		{"listen", isListenAddress, []string{":9090", "127.0.0.1:0", "[::]:80"}, []string{"", "9090", "host:http", "host:70000"}},
		{
			"nats", isNATSURL,
			[]string{"nats://localhost:4222", "nats://a:1, tls://b:2", "wss://nats.example.org"},
			[]string{"", "localhost:4222", "http://localhost", "nats://a:1,", "nats://token@localhost"},
		},
		{"stream", isStreamName, []string{"EVENTPUSHER", "a-b_c"}, []string{"", "a.b", "a b", "a*", ">"}},
		{"host", isHostname, []string{"localhost", "::1", "192.0.2.1", "rabbit.example.org"}, []string{"", "localhost:5672", "amqp://localhost", "a b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, s := range tt.good {
				if bad := tt.judge(s); bad != nil {
					t.Errorf("%q %s; %s", s, bad.text, bad.remedy)
				}
			}
			for _, s := range tt.bad {
				if bad := tt.judge(s); bad == nil {
					t.Errorf("%q passes", s)
				} else if bad.text == "" || bad.remedy == "" {
					t.Errorf("%q: complaint without text or remedy: %+v", s, bad)
				}
			}
		})
	}
}

func TestSigningRegion(t *testing.T) {
	for host, want := range map[string]string{
		"sns.eu-west-1.amazonaws.com": "eu-west-1", "sns.cn-north-1.amazonaws.com.cn": "cn-north-1", "https://sns.eu-west-1.amazonaws.com:443/": "eu-west-1",
		"eu-west-1.amazonaws.com": "us-east-1", "localhost": "us-east-1",
	} {
		if got := signingRegion(host); got != want {
			t.Errorf("signingRegion(%q) = %q, want %q", host, got, want)
		}
	}
}
