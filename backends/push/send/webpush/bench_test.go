package webpush

import (
	"testing"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/config"
)

func BenchmarkSend(b *testing.B) {
	service := pushtest.StartSink(b)
	s, err := New(Options{VAPID: newVAPID(b), Guard: newGuard(b, []string{"127.0.0.1"}), CACertFile: service.CAFile})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	to := notify.Target{Kind: notify.WebPush, Address: config.Secret(service.URL + "/1"), P256DH: exampleP256DH, Auth: exampleAuth}
	pushtest.Measure(b, func() error { return s.Send(b.Context(), to, notification()) })
}

func BenchmarkEncrypt(b *testing.B) {
	to, err := parseReceiver(&notify.Target{P256DH: exampleP256DH, Auth: exampleAuth})
	if err != nil {
		b.Fatal(err)
	}
	plaintext := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := to.encrypt(plaintext, 56); err != nil {
			b.Fatal(err)
		}
	}
}
