package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"eventpusher/backends/push"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/pushtest"
	"eventpusher/config"
	"eventpusher/internal/xmppserver"
)

// BenchmarkAppServer sends publishes as a server does and waits until all were answered
// and have reached the stand-in of Apple: decoding, the check of the secret, the
// outbox with its fsyncs, and the deliveries.
func BenchmarkAppServer(b *testing.B) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { server.Close() })
	apple := pushtest.StartSink(b)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	toml := fmt.Sprintf(`
[component]
address = %q
name = "events.localhost"
secret = "secret"
[general]
hosts = ["localhost"]
[outbox]
path = %q
[modules.mod_event_pusher.push]
[push]
burst = 1000
interval = "1ms"
[[push.app]]
name = "chat"
[push.app.apns]
key = %q
key_id = "ABC123DEFG"
team_id = "DEF123GHIJ"
topics = ["org.example.chat"]
url = %q
cacertfile = %q
`, server.Addr(), b.TempDir(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), apple.URL, apple.CAFile)
	cfg, problems := config.Parse([]byte(toml), nil, "")
	if cfg == nil {
		b.Fatal(problems)
	}
	a, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	session, err := server.Accept(ctx)
	if err != nil {
		b.Fatal(err)
	}
	const known = 1000
	var payloads [known]string
	registry := devices.NewRegistry(a.devices.store, a.registrar.push.Devices().Apps())
	var all sync.WaitGroup
	register := func(i int) {
		c, err := registry.Register(ctx, devices.Request{Kind: "apns", Token: fmt.Sprintf("%064x", i)})
		if err != nil {
			b.Error(err)
			return
		}
		payloads[i] = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='" + c.Node + "'><item><notification xmlns='urn:xmpp:push:0'><x type='form' xmlns='jabber:x:data'>" +
			"<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field><field var='message-count' type='text-single'><value>1</value></field>" +
			"<field var='last-message-sender' type='jid-single'><value>alice@localhost/r1</value></field><field var='last-message-body' type='text-single'><value>New Message!</value></field></x>" +
			"</notification></item></publish><publish-options><x type='submit' xmlns='jabber:x:data'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
			"<field var='secret'><value>" + c.Secret + "</value></field></x></publish-options></pubsub></iq>"
	}
	for i := range payloads {
		all.Go(func() { register(i) })
	}
	all.Wait()
	backend := a.backends[0].(*push.Backend)
	const window = 512
	places := make(chan struct{}, window)
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for i := range b.N {
			places <- struct{}{}
			if err := session.Send(fmt.Sprintf("<iq to='events.localhost' from='localhost' type='set' id='%d'>", i) + payloads[i%known]); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for range b.N {
		answer, err := session.Receive(ctx)
		if err != nil || answer.Type != "result" {
			b.Fatal(err, answer)
		}
		<-places
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "accepted/s")
	settled := func() int { return int(backend.Counts()["pushed"] + backend.Counts()["coalesced"]) }
	for settled() < b.N {
		select {
		case <-time.After(time.Millisecond):
		case err := <-ended:
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "delivered/s")
}
