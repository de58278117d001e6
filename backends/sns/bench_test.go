package sns_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssns "github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"eventpusher/backends/backendtest"
	"eventpusher/backends/sns"
	"eventpusher/event"
)

// BenchmarkPublish publishes batches of 10 through the backend and through the
// bare SDK, in turns and with the same number of calls at once, to a server that only says
// yes. The ratios are the backend's rate by the SDK's.
func BenchmarkPublish(b *testing.B) {
	var answer strings.Builder
	answer.WriteString(`<PublishBatchResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishBatchResult><Successful>`)
	for _, id := range "0123456789" {
		answer.WriteString("<member><Id>" + string(id) + "</Id><MessageId>m</MessageId></member>")
	}
	answer.WriteString(`</Successful><Failed></Failed></PublishBatchResult></PublishBatchResponse>`)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, answer.String())
	}))
	defer server.Close()
	backend, err := sns.New(sns.Options{Name: sns.Name, Section: options(server.URL), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	const lanes = 4
	transport := &http.Transport{MaxConnsPerHost: lanes, MaxIdleConnsPerHost: lanes}
	defer transport.CloseIdleConnections()
	client := awssns.New(awssns.Options{
		Region: region, BaseEndpoint: aws.String(server.URL), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		HTTPClient:  &http.Client{Transport: transport},
	})
	batch := backendtest.Messages(0, 10)
	const calls = 50 // of each lane in a turn
	parallel := func(publish func()) {
		var working sync.WaitGroup
		for range lanes {
			working.Go(func() {
				for range calls {
					publish()
				}
			})
		}
		working.Wait()
	}
	var ours, theirs backendtest.Timer
	total := 0
	for ; total < b.N; total += lanes * calls * len(batch) {
		theirs.Run(b, func() { parallel(func() { bareBatch(b, client, batch) }) })
		ours.Run(b, func() {
			parallel(func() {
				for _, err := range backend.Publish(context.Background(), batch) {
					if err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
	backendtest.Report(b, &ours, &theirs, total)
}

func bareBatch(b *testing.B, client *awssns.Client, batch []event.Event) {
	in := &awssns.PublishBatchInput{TopicArn: aws.String(arn + "user_message_sent")}
	for i := range batch {
		attribute := func(kind, value string) types.MessageAttributeValue {
			return types.MessageAttributeValue{DataType: aws.String(kind), StringValue: aws.String(value)}
		}
		in.PublishBatchRequestEntries = append(in.PublishBatchRequestEntries, types.PublishBatchRequestEntry{
			Id:      aws.String(string(rune('0' + i))),
			Message: aws.String(string(event.AppendPayload(nil, &batch[i], event.BareJID))),
			MessageAttributes: map[string]types.MessageAttributeValue{
				"event_id": attribute("String", batch[i].ID), "tenant": attribute("String", "blue & green"),
				"timestamp": attribute("Number", "1700000000000000"), "vip": attribute("String", "true"),
			},
		})
	}
	if _, err := client.PublishBatch(context.Background(), in); err != nil {
		b.Error(err)
	}
}
