package sns

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

func TestTopicARN(t *testing.T) {
	for _, tc := range []struct{ region, topic, want string }{
		// The cases of MongooseIM's event_pusher_sns_SUITE.
		{"eu-west-1", "user_message_sent-dev-1", "arn:aws:sns:eu-west-1:251423380551:user_message_sent-dev-1"},
		{"eu-west-1", "", ""},
		{"cn-north-1", "t", "arn:aws-cn:sns:cn-north-1:251423380551:t"},
		{"us-gov-east-1", "t.fifo", "arn:aws-us-gov:sns:us-gov-east-1:251423380551:t.fifo"},
		{"us-east-1", "arn:aws:sns:eu-west-1:1:other", "arn:aws:sns:eu-west-1:1:other"},
	} {
		c := &config.SNS{Region: tc.region, AccountID: "251423380551"}
		if got := topicARN(c, tc.topic); got != tc.want {
			t.Errorf("region %s, topic %q: %s, want %s", tc.region, tc.topic, got, tc.want)
		}
	}
}

func TestTopicOfEvent(t *testing.T) {
	all := config.SNS{PresenceUpdatesTopic: "presence", PMMessagesTopic: "pm", MUCMessagesTopic: "muc"}
	mucHost := func(host string) config.SNS {
		c := all
		c.MUCHost = host
		return c
	}
	message := func(kind string, d event.Direction, to jid.JID, hasBody bool) event.Event {
		return event.Event{Kind: event.Chat, Type: kind, Direction: d, From: "a@localhost/r", To: to, HasBody: hasBody}
	}
	room := func(host string) event.Event {
		return message("groupchat", event.In, jid.JID("room@"+host), true)
	}
	for _, tc := range []struct {
		name string
		c    config.SNS
		e    event.Event
		want string
	}{
		{"chat", all, message("chat", event.In, "b@localhost", true), "pm"},
		{"chat out", all, message("chat", event.Out, "b@localhost", true), ""},
		{"chat without body", all, message("chat", event.In, "b@localhost", false), ""},
		{"normal", all, message("normal", event.In, "b@localhost", true), ""},
		{"headline", all, message("headline", event.In, "b@localhost", true), ""},
		{"groupchat", all, room("muc.localhost"), "muc"},
		{"groupchat of any host", all, room("elsewhere"), "muc"},
		{"groupchat out", all, message("groupchat", event.Out, "b@localhost", true), ""},
		{"private message of a room", all, message("chat", event.In, "room@muc.localhost/nick", true), "pm"},
		{"muc_host", mucHost("muc.localhost"), room("muc.localhost"), "muc"},
		{"muc_host in other case", mucHost("MUC.localhost"), room("muc.localhost"), "muc"},
		{"muc_host in Unicode", mucHost("räume.localhost"), room("xn--rume-loa.localhost"), "muc"},
		{"muc_host, another", mucHost("muc.localhost"), room("conference.localhost"), ""},
		{"muc_host pattern, first", mucHost("muc.@HOST@"), room("muc.localhost"), "muc"},
		{"muc_host pattern, second", mucHost("muc.@HOST@"), room("muc.example.org"), "muc"},
		{"muc_host pattern, unserved", mucHost("muc.@HOST@"), room("muc.example.com"), ""},
		{"muc_host does not matter to chat", mucHost("muc.localhost"), message("chat", event.In, "b@localhost", true), "pm"},
		{"online", all, event.Event{Kind: event.UserStatus, Online: true}, "presence"},
		{"offline", all, event.Event{Kind: event.UserStatus}, "presence"},
		{"unacknowledged", all, event.Event{Kind: event.Unack, HasBody: true, Type: "chat", Direction: event.In}, ""},
		{"notification", all, event.Event{Kind: event.Notification, HasBody: true, Type: "normal"}, ""},
		{"stored", all, event.Event{Kind: event.Stored, HasBody: true, Type: "chat", Direction: event.In}, ""},
		{"the end of an account", all, event.Event{Kind: event.Removed, From: "alice@localhost", User: "alice@localhost"}, ""},
		{"missed", all, event.Event{Kind: event.Missed, HasBody: true, Type: "groupchat", To: "room@muc.localhost"}, ""},
		{"no topics", config.SNS{}, message("chat", event.In, "b@localhost", true), ""},
		{"no presence topic", config.SNS{PMMessagesTopic: "pm"}, event.Event{Kind: event.UserStatus}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.c.Host, tc.c.Region = "localhost", "eu-west-1"
			b, err := New(Options{Name: Name, Section: tc.c, Hosts: []string{"localhost", "example.org"}, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			got := ""
			if b.Wants(&tc.e) {
				got = b.topics.of(&tc.e)
			}
			if name := got[strings.LastIndexByte(got, ':')+1:]; name != tc.want {
				t.Errorf("topic %q, want %q", got, tc.want)
			}
		})
	}
}

func TestEndpointURL(t *testing.T) {
	for host, want := range map[string]string{
		"sns.eu-west-1.amazonaws.com":        "https://sns.eu-west-1.amazonaws.com",
		"localhost:4566":                     "https://localhost:4566",
		"http://localhost:4566":              "http://localhost:4566",
		"https://gateway.example.org:8/sns/": "https://gateway.example.org:8/sns",
		"http://user:pw@localhost":           "http://localhost",
	} {
		if u, err := endpointURL(host); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v, want %s", host, u, err, want)
		}
	}
	for _, host := range []string{"", "ftp://localhost", "http://", "http://a b", "://"} {
		if u, err := endpointURL(host); err == nil {
			t.Errorf("%q is accepted as %v", host, u)
		}
	}
}

func TestQuickDelay(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		n           int
		unit        time.Duration
		least, most time.Duration
	}{
		{1, 50 * ms, 0, 49 * ms}, {2, 50 * ms, 50 * ms, 99 * ms}, {3, 50 * ms, 150 * ms, 199 * ms}, {4, 50 * ms, 350 * ms, 399 * ms},
		{1, 1 * ms, 0, 0}, {3, 1 * ms, 3 * ms, 3 * ms},
		{1, 0, 0, 0}, {5, 0, 0, 0}, {0, 50 * ms, 0, 0}, {-1, 50 * ms, 0, 0},
		{1, time.Microsecond, 0, 0},
		{1000, 50 * ms, maxQuickDelay, maxQuickDelay},
	} {
		least, most := time.Duration(1<<62), time.Duration(-1)
		for range 2000 {
			d := quickDelay(tc.n, tc.unit)
			least, most = min(least, d), max(most, d)
		}
		if least < tc.least || most > tc.most {
			t.Errorf("retry %d of %v: %v to %v, want %v to %v", tc.n, tc.unit, least, most, tc.least, tc.most)
		}
		if tc.most-tc.least > 10*ms && most-least < (tc.most-tc.least)/2 {
			t.Errorf("retry %d of %v: %v to %v has no jitter", tc.n, tc.unit, least, most)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x00\x1f\xff\ufffe\t\n😀")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range printable(s) {
			if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
				t.Errorf("%U is left in %q", r, s)
			}
		}
	})
}
