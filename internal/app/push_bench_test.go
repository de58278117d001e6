package app

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"

	"eventpusher/backends/push"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/send/webpush"
	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/internal/jid"
)

// surroundings is runWorld in a process of its own.
type surroundings struct {
	worldReady
	tasks   *json.Encoder
	answers *json.Decoder
}

func startWorld(b *testing.B) *surroundings {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), worldDir+"="+b.TempDir())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2, cmd.Start()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		io.Copy(io.Discard, stdout)
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	w := &surroundings{tasks: json.NewEncoder(stdin), answers: json.NewDecoder(stdout)}
	if err := w.answers.Decode(&w.worldReady); err != nil {
		b.Fatal(err)
	}
	return w
}

// do has a task done.
func (w *surroundings) do(b *testing.B, task worldTask) worldDone {
	b.Helper()
	var done worldDone
	if err := errors.Join(w.tasks.Encode(task), w.answers.Decode(&done)); err != nil || done.Failed != "" {
		b.Fatal(err, done.Failed)
	}
	return done
}

// run runs the program with that configuration of push.
func (w *surroundings) run(b *testing.B, toml string) *App {
	b.Helper()
	cfg, problems := config.Parse(fmt.Appendf(nil, `
[component]
address = %q
name = %q
secret = "secret"
[general]
hosts = [%q]
[outbox]
path = %q
%s`, w.Server, feedComponent, feedHost, b.TempDir(), toml), nil, "")
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
	return a
}

// measurePushes does the task b.N times and reports how many a second were accepted and
// delivered, and the processor time that each has cost the program alone and the
// surroundings.
func measurePushes(b *testing.B, w *surroundings, task worldTask) {
	b.Helper()
	task.Count = 1
	w.do(b, task) // connects
	task.Count = b.N
	b.ReportAllocs()
	b.ResetTimer()
	before := used()
	done := w.do(b, task)
	cost := used() - before
	b.StopTimer()
	n := float64(b.N)
	b.ReportMetric(n/done.Accepted.Seconds(), "accepted/s")
	b.ReportMetric(n/done.Delivered.Seconds(), "delivered/s")
	b.ReportMetric(float64(cost.Nanoseconds())/1000/n, "cpu-µs/push")
	b.ReportMetric(float64(done.Cost.Nanoseconds())/1000/n, "others-µs/push")
}

// BenchmarkPush measures pushes through the whole program, with the fsyncs of its
// outbox: what servers publish at it for devices of ours, and what the event-feed tells of
// users who are offline, whose devices a MongoosePush reaches.
func BenchmarkPush(b *testing.B) {
	b.Run("apns", func(b *testing.B) { benchmarkDevices(b, appleApp, appleDevice) })
	b.Run("fcm", func(b *testing.B) { benchmarkDevices(b, googleApp, googleDevice) })
	b.Run("webpush", func(b *testing.B) { benchmarkDevices(b, browserApp, browserDevice) })
	b.Run("gateway", benchmarkGateway)
}

// benchmarkDevices measures publishes for the devices of an application. There are so many that none
// gets a notification while an earlier one waits, whose place it would take.
func benchmarkDevices(b *testing.B, app func(*testing.B, *surroundings) string, device func(*testing.B, *surroundings, int) devices.Request) {
	w := startWorld(b)
	a := w.run(b, "[modules.mod_event_pusher.push]\n[push]\nburst = 1000\ninterval = \"1ms\"\n[[push.app]]\nname = \"chat\"\n"+app(b, w))
	registry := devices.NewRegistry(a.pushing.store, pushOf(a).Devices().Apps())
	payloads := make([]string, 10_000)
	var all sync.WaitGroup
	for i := range payloads {
		all.Go(func() {
			c, err := registry.Register(context.Background(), device(b, w, i))
			if err != nil {
				b.Error(err)
				return
			}
			payloads[i] = publishByProsody(c)
		})
	}
	all.Wait()
	measurePushes(b, w, worldTask{Payloads: payloads})
}

// pushOf returns the backend.
func pushOf(a *App) *push.Backend { return a.backends.all()[0].(*push.Backend) }

// publishByProsody is what mod_cloud_notify sends.
func publishByProsody(c store.Credentials) string {
	return "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='" + c.Node + "'><item><notification xmlns='urn:xmpp:push:0'><x type='form' xmlns='jabber:x:data'>" +
		"<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field><field var='message-count' type='text-single'><value>1</value></field>" +
		"<field var='pending-subscription-count' type='text-single'/><field var='last-message-sender' type='jid-single'><value>alice@" + feedHost + "/r1</value></field>" +
		"<field var='last-message-body' type='text-single'><value>New Message!</value></field></x>" +
		"</notification></item></publish><publish-options><x type='submit' xmlns='jabber:x:data'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
		"<field var='secret'><value>" + c.Secret + "</value></field></x></publish-options></pubsub>"
}

func appleApp(b *testing.B, w *surroundings) string {
	return fmt.Sprintf("[push.app.apns]\nkey = %q\nkey_id = \"ABC123DEFG\"\nteam_id = \"DEF123GHIJ\"\ntopics = [\"org.example.chat\"]\nurl = %q\ncacertfile = %q\n", newP8(b), w.Sink, w.CAFile)
}

// newP8 returns a key as Apple hands them out.
func newP8(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func appleDevice(_ *testing.B, _ *surroundings, i int) devices.Request {
	return devices.Request{Kind: "apns", Token: fmt.Sprintf("%064x", i)}
}

func googleApp(b *testing.B, w *surroundings) string {
	return fmt.Sprintf("[push.app.fcm]\ncredentials = %q\nurl = %q\ncacertfile = %q\n", pushtest.ServiceAccount(b, w.Sink).Reveal(), w.Sink, w.CAFile)
}

func googleDevice(_ *testing.B, _ *surroundings, i int) devices.Request {
	return devices.Request{Kind: "fcm", Token: fmt.Sprintf("fcm-registration-token-%0140d", i)}
}

func browserApp(b *testing.B, w *surroundings) string {
	key, err := webpush.GenerateVAPIDKey()
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("[push.app.webpush]\nvapid_key = %q\nsubject = \"mailto:push@example.org\"\nallow = [\"127.0.0.1\"]\ncacertfile = %q\n", key.Reveal(), w.CAFile)
}

func browserDevice(b *testing.B, w *surroundings, i int) devices.Request {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		b.Error(err)
		return devices.Request{}
	}
	auth := make([]byte, 16)
	_, _ = rand.Read(auth) // never fails
	text := base64.RawURLEncoding.EncodeToString
	return devices.Request{Kind: "webpush", Endpoint: fmt.Sprintf("%s/push/%d", w.Sink, i), P256DH: text(key.PublicKey().Bytes()), Auth: text(auth)}
}

// benchmarkGateway measures messages to users who are offline.
func benchmarkGateway(b *testing.B) {
	const users = 5000
	w := startWorld(b)
	a := w.run(b, fmt.Sprintf(`
[modules.mod_event_pusher.push]
virtual_pubsub_hosts = ["pubsub.@HOST@"]
[modules.mod_push_service_mongoosepush]
pool_name = "mongoose"
[outgoing_pools.http.mongoose.connection]
host = %q
tls.cacertfile = %q
`, w.Sink, w.CAFile))
	var all sync.WaitGroup
	for i := range users {
		all.Go(func() {
			s := store.Service{PubSub: "pubsub." + feedHost, Node: "n", Options: []notify.Field{
				{Name: "service", Value: "fcm"}, {Name: "device_id", Value: fmt.Sprint("device-", i)},
			}}
			if err := a.pushing.registrations.Enable(context.Background(), jid.JID(fmt.Sprintf("user%d@%s", i, feedHost)), s); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	measurePushes(b, w, worldTask{Users: users})
}
