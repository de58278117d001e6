package sns

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sns"
	smithy "github.com/aws/smithy-go"

	"eventpusher/backends"
	"eventpusher/internal/finding"
)

var _ backends.Probing = (*Backend)(nil)

// Probe implements backends.Probing. It asks for the attributes of each topic, which
// shows that endpoint, region, key, clock and topic are right. The right to do that is
// another than to publish, so that its lack proves nothing but that the key is known.
func (b *Backend) Probe(ctx context.Context) []finding.Finding {
	var list []finding.Finding
	asked := make(map[string]bool)
	for _, topic := range []string{b.topics.all, b.topics.presence, b.topics.pm, b.topics.muc} {
		if topic == "" || asked[topic] {
			continue
		}
		asked[topic] = true
		list = append(list, b.probeTopic(ctx, topic))
	}
	if len(list) == 0 {
		return []finding.Finding{finding.Warnf(b.Name(), "set presence_updates_topic, pm_messages_topic or muc_messages_topic", "no topic is configured")}
	}
	return list
}

func (b *Backend) probeTopic(ctx context.Context, topic string) finding.Finding {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := b.client.GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: &topic})
	if err == nil {
		return finding.Okf(b.Name(), "topic %s is there; whether this key may publish to it shows with the first event", topic)
	}
	if none := b.withoutCredentials(err); none != nil {
		return finding.Failf(b.Name(), "", "topic %s: %s", topic, none)
	}
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() == unknownCode {
		return finding.Failf(b.Name(), "check the region and the network ("+b.shownEndpoint+")", "topic %s: %s", topic, b.shorten(err))
	}
	code := api.ErrorCode()
	text := fmt.Sprintf("topic %s: %s", topic, describe(code, api.ErrorMessage()))
	switch strings.TrimSuffix(code, "Exception") {
	case "AuthorizationError", "AccessDenied":
		return finding.Warnf(b.Name(), "to have it checked, allow sns:GetTopicAttributes", "this key may not look at topic %s, so only that the key is known is certain", topic)
	}
	if kindOf(code, api.ErrorMessage()) == access {
		return finding.Failf(b.Name(), b.remedy(code), "%s", text)
	}
	return finding.Warnf(b.Name(), "ask again later", "%s", text)
}
