package fcm

import (
	"testing"
	"time"

	"eventpusher/backends/push/pushtest"
)

func BenchmarkSend(b *testing.B) {
	service := pushtest.StartSink(b)
	google := pushtest.StartFCM(b, time.Hour)
	s, err := New(Options{ServiceAccount: google.ServiceAccount(b), URL: service.URL, TLS: service.TLS()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.account.accessToken = accessToken{"ya29.benchmark", time.Now().Add(24 * time.Hour)}
	pushtest.Measure(b, func() error { return s.Send(b.Context(), target(), notification()) })
}

func BenchmarkRequest(b *testing.B) {
	_, s := start(b, time.Hour, nil)
	to, n := target(), notification()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.request(&to, &n); err != nil {
			b.Fatal(err)
		}
	}
}
