//go:build linux

package rabbit

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/internal/jid"
)

func TestExchangeFor(t *testing.T) {
	all := config.Rabbit{
		Presence:  &config.Exchange{Name: "presence"},
		Chat:      &config.Exchange{Name: "chat_msg", SentTopic: "sent", RecvTopic: "recv"},
		GroupChat: &config.Exchange{Name: "groupchat_msg", SentTopic: "gsent", RecvTopic: "grecv"},
	}
	message := func(kind string, d event.Direction) event.Event {
		return event.Event{Kind: event.Chat, Type: kind, Direction: d, From: "alice@localhost/r", To: "room@muc.localhost/Nick", User: "alice@localhost", HasBody: true}
	}
	one := config.Rabbit{All: &config.Exchange{Name: "events"}}
	noBody := message("chat", event.In)
	noBody.HasBody = false
	for _, tc := range []struct {
		name          string
		c             config.Rabbit
		e             event.Event
		exchange, key string
	}{
		{"online", all, event.Event{Kind: event.UserStatus, From: "alice@localhost/r"}, "presence", "alice@localhost"},
		{"chat in", all, message("chat", event.In), "chat_msg", "alice@localhost.sent"},
		{"chat out", all, message("chat", event.Out), "chat_msg", "room@muc.localhost.recv"},
		{"groupchat in", all, message("groupchat", event.In), "groupchat_msg", "alice@localhost.gsent"},
		{"groupchat out", all, message("groupchat", event.Out), "groupchat_msg", "room@muc.localhost.grecv"},
		{"normal", all, message("normal", event.In), "", ""},
		{"headline", all, message("headline", event.Out), "", ""},
		{"no body", all, noBody, "", ""},
		{"no direction", all, message("chat", event.NoDirection), "", ""},
		{"unacknowledged", all, event.Event{Kind: event.Unack, Type: "chat", HasBody: true}, "", ""},
		{"notification", all, event.Event{Kind: event.Notification, Type: "normal", HasBody: true}, "", ""},
		{"stored", all, event.Event{Kind: event.Stored, Type: "chat", HasBody: true}, "", ""},
		{"the end of an account", all, event.Event{Kind: event.Removed, From: "alice@localhost", User: "alice@localhost"}, "", ""},
		{"missed", all, event.Event{Kind: event.Missed, Type: "groupchat", HasBody: true}, "", ""},
		{"one for everything", one, message("groupchat", event.Out), "events", "groupchat.out.alice@localhost"},
		{"one for everything, a status", one, event.Event{Kind: event.UserStatus, Online: true, User: "alice@localhost"}, "events", "user_status.online.alice@localhost"},
		{"one for everything, of another sort", one, event.Event{Kind: event.Unack, HasBody: true}, "", ""},
		{"no presence section", config.Rabbit{Chat: all.Chat}, event.Event{Kind: event.UserStatus}, "", ""},
		{"no chat section", config.Rabbit{Presence: all.Presence}, message("chat", event.In), "", ""},
		{"no groupchat section", config.Rabbit{Chat: all.Chat}, message("groupchat", event.In), "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := New(Options{Name: Name, Section: tc.c, Pool: config.RabbitPool{}, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			var x *config.Exchange
			if b.Wants(&tc.e) {
				x = b.exchangeFor(&tc.e)
			}
			if (x == nil) != (tc.exchange == "") {
				t.Fatalf("exchange %v, want %q", x, tc.exchange)
			}
			if x == nil {
				return
			}
			if key, err := b.routingKey(x, &tc.e); x.Name != tc.exchange || key != tc.key || err != nil {
				t.Errorf("%s %s %v, want %s %s", x.Name, key, err, tc.exchange, tc.key)
			}
		})
	}
}

func TestRoutingKeyLimit(t *testing.T) {
	x := &config.Exchange{Name: "chat_msg", SentTopic: "sent"}
	const suffix = "@localhost.sent"
	for _, tc := range []struct {
		length int
		want   string
	}{{255, ""}, {256, "permanent"}} {
		e := event.Event{Kind: event.Chat, Direction: event.In, From: jid.JID(strings.Repeat("x", tc.length-len(suffix)) + "@localhost/r")}
		if key, err := new(Backend).routingKey(x, &e); backends.Reason(err) != tc.want {
			t.Errorf("key of %d bytes: %v, want %q", len(key), err, tc.want)
		}
	}
}

func TestNewRefusesNames(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("x", 256)} {
		if _, err := New(Options{Name: Name, Section: config.Rabbit{Chat: &config.Exchange{Name: name}}, Pool: config.RabbitPool{}, Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("an exchange with a name of %d bytes is accepted", len(name))
		}
	}
}

func TestLimitsKeepTheWindow(t *testing.T) {
	for _, tc := range []struct{ window, workers, lanes, batch int }{
		{0, 0, 2, 128}, {256, 10, 2, 128}, {256, 1, 1, 256}, {1, 10, 1, 1}, {3, 10, 2, 1},
	} {
		b, err := New(Options{Name: Name, Section: config.Rabbit{}, Pool: config.RabbitPool{Window: tc.window, PoolOptions: config.PoolOptions{Workers: tc.workers}}})
		if err != nil {
			t.Fatal(err)
		}
		if l := b.Limits(); l.Lanes != tc.lanes || l.Batch != tc.batch {
			t.Errorf("window %d, workers %d: %+v, want %d lanes of %d", tc.window, tc.workers, l, tc.lanes, tc.batch)
		}
	}
}

func TestExplainLogin(t *testing.T) {
	d := dialer{pool: config.RabbitPool{Username: "joe", VirtualHost: "/chat", Password: "hunter2"}}
	for _, tc := range []struct {
		name         string
		err          error
		want, detail string
	}{
		{"silent close at the login", amqp.ErrCredentials, "paused", `login of user "joe"`},
		{"refused with a word", &amqp.Error{Code: 403, Server: true, Reason: "ACCESS_REFUSED"}, "paused", `login of user "joe"`},
		{"no access to the vhost", &amqp.Error{Code: 530, Server: true, Reason: "NOT_ALLOWED - vhost /chat not found"}, "paused", `virtual host "/chat"`},
		{"silent close at the vhost", amqp.ErrVhost, "paused", `virtual host "/chat"`},
		{"too many connections", &amqp.Error{Code: 530, Server: true, Reason: "NOT_ALLOWED - connection limit (5) is reached"}, "transient", "limit"},
		{"vhost down", &amqp.Error{Code: 541, Server: true, Reason: "INTERNAL_ERROR - vhost '/' is down"}, "transient", "down"},
		{"hung up", &amqp.Error{Code: 501, Reason: "EOF"}, "transient", "speaks TLS"},
		{"no mechanism", amqp.ErrSASL, "transient", "SASL"},
		{"other", errors.New("odd"), "transient", "odd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := d.explain(node{address: "localhost:5672"}, tc.err)
			if backends.Reason(err) != tc.want || !strings.Contains(err.Error(), tc.detail) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v (%q), want %q with %q", err, backends.Reason(err), tc.want, tc.detail)
			}
		})
	}
}

func TestRefusedSize(t *testing.T) {
	for _, tc := range []struct {
		reason string
		code   int
		want   int
		ok     bool
	}{
		{"PRECONDITION_FAILED - message size 20000000 is larger than configured max size 16777216", 406, 20_000_000, true},
		{"PRECONDITION_FAILED - inequivalent arg 'type'", 406, 0, false},
		{"NOT_FOUND - no exchange", 404, 0, false},
	} {
		if got, ok := refusedSize(&amqp.Error{Code: tc.code, Reason: tc.reason}); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %d, %t", tc.reason, got, ok)
		}
	}
}

// The event that the broker finds too large goes to the dead letters; those that
// went down with it come again.
func TestFailureBlamesTheMessageThatIsTooLarge(t *testing.T) {
	closed := make(chan *amqp.Error, 1)
	closed <- &amqp.Error{Code: 406, Reason: "PRECONDITION_FAILED - message size 20 is larger than configured max size 16"}
	ch := &channel{session: &session{backend: new(Backend), address: "localhost:5672"}, closed: closed}
	for size, want := range map[int]string{20: "too_large", 19: "transient"} {
		if err := ch.failure(t.Context(), amqp.ErrClosed, size); backends.Reason(err) != want {
			t.Errorf("size %d: %v (%q), want %q", size, err, backends.Reason(err), want)
		}
	}
}

// Who may declare an exchange but not write to it has to ask the operator.
func TestFailureNamesTheMissingPermission(t *testing.T) {
	closed := make(chan *amqp.Error, 1)
	closed <- &amqp.Error{Code: 403, Reason: "ACCESS_REFUSED - write access to exchange 'presence' in vhost '/' refused for user 'joe'"}
	ch := &channel{session: &session{backend: &Backend{dialer: dialer{pool: config.RabbitPool{Username: "joe"}}}}, closed: closed}
	if err := ch.failure(t.Context(), amqp.ErrClosed, 1); backends.Reason(err) != "paused" || !strings.Contains(err.Error(), `grant user "joe" the write permission`) {
		t.Errorf("%v (%q), want paused with the permission that is missing", err, backends.Reason(err))
	}
}

// connected returns a backend for the shared broker that has published batch.
func connected(t *testing.T) (b *Backend, s *session, batch []event.Event) {
	t.Helper()
	broker := harness.SharedRabbitMQ(t)
	b, err := New(Options{Name: Name, Section: config.Rabbit{Chat: &config.Exchange{Name: "internal", Type: "topic"}}, Pool: config.RabbitPool{
		Host: broker.Host, Port: broker.Port, Username: broker.Username, Password: config.Secret(broker.Password),
		VirtualHost: broker.VHost, ConfirmsEnabled: true,
	}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	batch = []event.Event{{Kind: event.Chat, Type: "chat", Direction: event.In, From: "a@localhost", To: "b@localhost", HasBody: true}}
	if err := b.Publish(t.Context(), batch)[0]; err != nil {
		t.Fatal(err)
	}
	if s, err = b.session(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b, s, batch
}

// A channel whose confirms are unknown must not be used again, nor stay open.
func TestChannelInDoubtIsClosed(t *testing.T) {
	_, s, _ := connected(t)
	doubtful, err := s.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.release(doubtful, false)
	<-doubtful.closed
	again, err := s.acquire(t.Context())
	if err != nil || again == doubtful {
		t.Errorf("the same channel again, %v", err)
	}
	s.release(again, true)
	if kept, err := s.acquire(t.Context()); err != nil || kept != again {
		t.Errorf("a sound channel is not kept, %v", err)
	}
}

func TestBlockedBroker(t *testing.T) {
	b, s, batch := connected(t)
	s.setBlocked(amqp.Blocking{Active: true, Reason: "low on memory"})
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	err := s.waitUnblocked(ctx)
	if backends.Reason(err) != "timeout" || !strings.Contains(err.Error(), "low on memory") {
		t.Errorf("%v (%q), want a timeout that gives the broker's reason", err, backends.Reason(err))
	}
	published := make(chan error)
	go func() { published <- b.Publish(t.Context(), batch)[0] }()
	s.setBlocked(amqp.Blocking{Active: true, Reason: "low on disk"}) // again, as brokers do
	s.setBlocked(amqp.Blocking{})
	if err := <-published; err != nil {
		t.Error(err)
	}
	if n := b.Counts()["connections_blocked"]; n != 1 {
		t.Errorf("%d times blocked, want 1", n)
	}
	s.setBlocked(amqp.Blocking{Active: true})
	s.cut()
	if err := s.waitUnblocked(t.Context()); backends.Reason(err) != "transient" {
		t.Errorf("%v, want a transient error when the connection is lost", err)
	}
}

// Attempts to connect keep reconnect.delay between them.
func TestReconnectDelay(t *testing.T) {
	b, err := New(Options{Name: Name, Section: config.Rabbit{}, Pool: config.RabbitPool{Host: "127.0.0.1", Port: 1, ReconnectDelay: 1 << 60}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, first := b.session(t.Context())
	_, second := b.session(t.Context())
	if first == nil || first != second || b.Counts()["connections_failed"] != 1 {
		t.Errorf("%v, then %v, after %d attempts", first, second, b.Counts()["connections_failed"])
	}
	b.pause = b.pause.Add(-1 << 60)
	if _, err := b.session(t.Context()); err == nil || b.Counts()["connections_failed"] != 2 {
		t.Errorf("after the delay: %v, after %d attempts", err, b.Counts()["connections_failed"])
	}
}

// listen returns a listener on loopback and its port.
func listen(t *testing.T) (net.Listener, int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).Port
}

// A login that nobody answers ends with Close.
func TestCloseWhileConnecting(t *testing.T) {
	l, port := listen(t)
	b, err := New(Options{Name: Name, Section: config.Rabbit{}, Pool: config.RabbitPool{Host: "127.0.0.1", Port: port}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := b.session(t.Context())
		failed <- err
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if _, err := b.session(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}
