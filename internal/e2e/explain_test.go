package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"eventpusher/internal/harness"
	"eventpusher/internal/xmppserver"
)

// What explain says of an event or a stanza is what has happened to it, while the program runs
// and, of dead letters, when it does not. tail shows what comes.
func TestExplain(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	sink, dir := harness.HTTPSink(t), t.TempDir()
	config := filepath.Join(dir, "config.toml")
	toml := fmt.Sprintf(`
[component]
address = %q
name = "events.localhost"
secret = "secret"
[general]
hosts = ["localhost"]
[outbox]
path = %q
[[filter]]
name = "no secrets"
keep = 'not (event.body contains "secret")'
[[destination]]
name = "crm"
type = "http"
url = %q
format = "json"
[[destination]]
name = "picky"
type = "http"
url = %q
format = "json"
when = 'event.body != "hush" and (event.body != "breaks" or split(event.body, ":")[1] == "x")'
`, server.Addr(), filepath.Join(dir, "outbox"), sink.URL()+"/crm", sink.URL()+"/picky")
	if err := os.WriteFile(config, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	program := build(t)
	explain := func(id string) string {
		out, _ := exec.Command(program, "explain", "-config", config, id).CombinedOutput()
		return string(out)
	}
	says := func(id string, texts ...string) {
		t.Helper()
		var got string
		if !poll(limit, func() bool {
			got = explain(id)
			for _, text := range texts {
				if !strings.Contains(got, text) {
					return false
				}
			}
			return true
		}) {
			t.Errorf("%s: want %q in\n%s", id, texts, got)
		}
	}
	p := run(t, program, config)
	session, err := server.Accept(contextFor(t, limit))
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the socket for commands", func() bool {
		_, err := os.Stat(filepath.Join(dir, "outbox", "control.sock"))
		return err == nil
	})
	tailed := filepath.Join(dir, "tail")
	file, err := os.Create(tailed)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tail := exec.Command(program, "tail", "-config", config, "-bodies", "-when", `event.stanza_id in ["plain", "held"]`)
	tail.Stdout, tail.Stderr = file, file
	tail.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	lines := func() string { text, _ := os.ReadFile(tailed); return string(text) }
	n := 0
	send := func(xml string) {
		t.Helper()
		if err := session.Send(xml); err != nil {
			t.Fatal(err)
		}
	}
	say := func(id, body string) {
		n++
		send(fmt.Sprintf("<message from='localhost' to='events.localhost'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' id='%s' from='alice%d@localhost/x' to='bob@elsewhere.example'><body>%s</body></message></forwarded></message>", id, n, body))
	}
	await(t, "the first lines of tail", func() bool { // it shows what comes after it has begun
		say("plain", "hello")
		return strings.Contains(lines(), `"hello"`)
	})
	says("plain", "chat.in", "kept by all filters: no secrets", "crm    delivered at", "picky  delivered at")
	say("held", "a secret")
	says("held", `dropped by the filter "no secrets"`)
	await(t, "what the filter has dropped", func() bool { return strings.Contains(lines(), `dropped by the filter "no secrets"`) })
	say("quiet", "hush")
	says("quiet", "crm    delivered", "picky  its when does not hold")
	say("breaks", "breaks")
	says("breaks", "crm    delivered", "picky  its when has failed", "dead letter 1 of picky", "beyond the end of a list")

	sink.Answer(http.StatusServiceUnavailable)
	say("late", "later")
	says("late", "crm    waits for attempt", "503")
	sink.Answer(http.StatusOK)
	says("late", "crm    delivered")
	sink.Answer(http.StatusBadRequest)
	say("refused", "no")
	says("refused", "crm    became a dead letter", "400", "dead letter 2 of", "permanent")
	sink.Answer(http.StatusOK)

	send("<message from='mallory@localhost/x' to='events.localhost'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' id='forged' from='alice@localhost/x' to='bob@localhost'><body>hi</body></message></forwarded></message>")
	says("forged", "no event, since its sender is none of [component] forwarders")
	send("<message from='alice@localhost/x' to='events.localhost' type='chat' id='direct'><body>hi</body></message>")
	says("direct", "by direct: no event, since another feed counts for this")

	for range 2 { // as the server copies it when it is sent, and when it is received
		send("<message from='localhost' to='events.localhost'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' id='copied' from='alice@localhost/x' to='bob@localhost'><body>hi</body></message></forwarded></message>")
	}
	says("copied", "chat.in", "chat.out", "by service_log: no event, since it is a second copy")
	if out, _ := exec.Command(program, "explain", "-json", "-config", config, "plain").CombinedOutput(); !strings.Contains(string(out), `"stanza_id":"plain"`) || strings.Contains(string(out), "hello") {
		t.Errorf("-json shows what was not asked for: %s", out)
	}
	if got := explain("nothing"); !strings.Contains(got, `nothing is known of "nothing"`) || strings.Contains(lines(), "hush") {
		t.Errorf("nothing: %s\ntail: %s", got, lines())
	}
	_ = tail.Process.Signal(syscall.SIGTERM)
	if err := tail.Wait(); err != nil {
		t.Errorf("tail: %v", err)
	}
	out, err := exec.Command(program, "tail", "-config", config, "-when", `event.bdy == "x"`).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "bdy") {
		t.Errorf("a typo: %v %s", err, out)
	}
	p.end(syscall.SIGTERM)
	says("refused", "dead letter 2 of", "permanent")
	if out, err := exec.Command(program, "tail", "-config", config).CombinedOutput(); err == nil || !strings.Contains(string(out), "no instance runs") {
		t.Errorf("tail of nothing: %v %s", err, out)
	}
}
