package apns

import (
	"testing"
	"time"

	"eventpusher/backends/push/pushtest"
)

func BenchmarkSend(b *testing.B) {
	service := pushtest.StartSink(b)
	_, p8 := newPrivateKey(b)
	s, err := New(Options{Key: newTestKey(b, p8, &clock{time.Now()}), Topics: []string{topic}, URL: service.URL, TLS: service.TLS()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	pushtest.Measure(b, func() error { return s.Send(b.Context(), target(), notification()) })
}

func BenchmarkRequest(b *testing.B) {
	_, p8 := newPrivateKey(b)
	s, err := New(Options{Key: newTestKey(b, p8, &clock{time.Now()}), Topics: []string{topic}})
	if err != nil {
		b.Fatal(err)
	}
	n := notification()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.request(&n, topic); err != nil {
			b.Fatal(err)
		}
	}
}
