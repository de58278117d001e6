package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"eventpusher/internal/harness"
)

// What deploy/compose starts works together: its Prosody, its RabbitMQ and the program, with
// their configurations as they are and the addresses of the test.
func TestCompose(t *testing.T) {
	server := harness.Prosody(t, harness.ProsodyOptions{
		Hosts: []string{"example.org"}, MUC: "conference.example.org", Components: []string{"events.example.org"}, File: "deploy/compose/prosody.cfg.lua",
	})
	broker := harness.RabbitMQ(t)
	config := filepath.Join(t.TempDir(), "config.toml")
	text, err := os.ReadFile("../../deploy/compose/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	const connection = "EVENTPUSHER_OUTGOING_POOLS_RABBIT_EVENT_PUSHER_CONNECTION_"
	for key, value := range map[string]string{
		"EVENTPUSHER_COMPONENT_SECRET": server.Secret, "EVENTPUSHER_ADMIN_TOKEN": strings.Repeat("t", 32), connection + "PASSWORD": broker.Password,
		// What differs from the containers:
		"EVENTPUSHER_COMPONENT_ADDRESS": server.ComponentAddr(server.Component), "EVENTPUSHER_ADMIN_LISTEN": "127.0.0.1:0", "EVENTPUSHER_OUTBOX_PATH": filepath.Join(t.TempDir(), "outbox"),
		connection + "HOST": broker.Host, connection + "PORT": fmt.Sprint(broker.Port), connection + "USERNAME": broker.Username,
	} {
		t.Setenv(key, value)
	}
	p := run(t, build(t), config)
	p.says("feed established", "example.org", "event-feed")
	c := broker.Consume(harness.Binding{Exchange: "chat_msg", Kind: "topic", Key: "#"})
	alice := server.Login(t, "alice", "phone")
	alice.Presence()
	alice.Send("<message to='bob@example.org' type='chat' id='first'><body>hello</body></message>")
	if got := c.Wait(2)[0]; !strings.Contains(string(got.Body), "hello") {
		t.Errorf("%s", got.Body)
	}
	if code := p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
