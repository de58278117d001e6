//go:build linux

package harness

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSNSShowsWhatIsPublished(t *testing.T) {
	t.Parallel()
	e := SNS(t)
	arn := e.CreateTopic("user_message_sent")
	e.sns(url.Values{
		"Action": {"Publish"}, "TopicArn": {arn}, "Message": {`{"a":1}`},
		"MessageAttributes.entry.1.Name":              {"kind"},
		"MessageAttributes.entry.1.Value.DataType":    {"String"},
		"MessageAttributes.entry.1.Value.StringValue": {"chat"},
	})
	want := []SNSMessage{{
		TopicARN: arn, Message: `{"a":1}`, Attributes: map[string]SNSAttribute{"kind": {Type: "String", Value: "chat"}},
	}}
	if diff := cmp.Diff(want, e.WaitMessages("user_message_sent", 1)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	calls := e.Calls("Publish")
	if len(calls) != 1 || calls[0].Form["Message"] != `{"a":1}` {
		t.Errorf("calls: %v", calls)
	}

	e.Stop()
	if _, err := e.client.Get(e.Endpoint() + "/health"); err == nil {
		t.Error("answers after Stop")
	}
	e.Start()
	e.sns(url.Values{"Action": {"Publish"}, "TopicArn": {arn}, "Message": {"second"}})
	got := e.WaitMessages("user_message_sent", 2)
	if got[0].Message != `{"a":1}` || got[1].Message != "second" {
		t.Errorf("after Start: %v", got)
	}
}

func TestSNSFIFOTopic(t *testing.T) {
	t.Parallel()
	e := SNS(t)
	arn := e.CreateTopic("events.fifo")
	for _, id := range []string{"1", "1", "2"} {
		e.sns(url.Values{
			"Action": {"Publish"}, "TopicArn": {arn}, "Message": {"m" + id},
			"MessageGroupId": {"alice"}, "MessageDeduplicationId": {id},
		})
	}
	var got []string
	for _, m := range e.WaitMessages("events.fifo", 2) {
		got = append(got, m.Message+" "+m.GroupID+" "+m.DeduplicationID)
	}
	if strings.Join(got, ", ") != "m1 alice 1, m2 alice 2" {
		t.Errorf("messages: %q", got)
	}
}
