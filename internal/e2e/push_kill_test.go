package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestKillPush ends the program with kill -9 while it notifies. Each message notifies then,
// and once more at most: neither what a message has become, nor what was sent, may be saved
// by the kill.
func TestKillPush(t *testing.T) {
	const rounds, messages = 3, 20
	server := pushServers[0].start(t)
	w := preparePush(t, server, "", "v3", "")
	config := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(config, []byte(w.toml), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() *process {
		p := run(t, build(t), config)
		w.watch(p)
		await(t, "readiness", w.ready)
		return p
	}
	told := func() map[string]int {
		count := make(map[string]int)
		for _, r := range w.gateway.Requests() {
			var b struct{ Alert struct{ Body string } }
			if err := json.Unmarshal([]byte(r.Body), &b); err != nil {
				t.Fatal(err)
			}
			count[b.Alert.Body]++
		}
		return count
	}
	p := start()
	alice := w.login("alice", "phone")
	alice.IQ("set", "", pushEnable("virtual.localhost", "phone", "service", "fcm", "device_id", "phone"))
	leave(alice)
	bob := server.Login(t, "bob", "desk")
	for round := range rounds {
		if round > 0 {
			p = start()
		}
		for i := range messages {
			bob.Sendf("<message to='alice@localhost' type='chat' id='%d-%d'>%s</message>", round, i, body(fmt.Sprint("message ", round, " ", i)))
		}
		await(t, "a notification", func() bool { return len(told()) > messages*round })
		p.end(syscall.SIGKILL)
		p = start()
		await(t, "all notifications", func() bool {
			b := w.backend("push")
			return len(told()) == messages*(round+1) && b.Waiting+b.InFlight == 0
		})
		p.end(syscall.SIGTERM) // all is saved
	}
	for text, n := range told() {
		if n > 2 {
			t.Errorf("%q has notified %d times", text, n)
		}
	}
}
