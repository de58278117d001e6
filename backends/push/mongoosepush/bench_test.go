package mongoosepush

import (
	"testing"
	"time"

	"eventpusher/backends/push/pushtest"
	"eventpusher/config"
)

func BenchmarkPublish(b *testing.B) {
	service := pushtest.StartSink(b)
	c, err := New(config.MongoosePush{}, config.HTTPPool{Host: service.URL, TLS: service.TLS(), RequestTimeout: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	options := map[string]string{"service": "apns", "topic": "app.topic", "priority": "high"}
	fields := summary("1", "alice@localhost", "OH, HAI!")
	pushtest.Measure(b, func() error { return c.Publish(b.Context(), "tok-1", options, fields) })
}
