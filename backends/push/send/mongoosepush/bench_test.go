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
	target := to("tok-1", map[string]string{"service": "apns", "topic": "app.topic", "priority": "high"})
	n := told(summary("1", "alice@localhost", "OH, HAI!"))
	pushtest.Measure(b, func() error { return c.Send(b.Context(), target, n) })
}
