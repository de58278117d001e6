package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/xmppserver"
)

// deviceCluster is two instances as one app server.
type deviceCluster struct {
	*cluster
	google *pushtest.FCM
	n      int
}

func newDeviceCluster(t *testing.T) *deviceCluster {
	t.Helper()
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	google := pushtest.StartFCM(t, time.Hour)
	c := prepareCluster(t, server.Addr(), fmt.Sprintf(`token = %q
[modules.mod_event_pusher.push]
backend = "nats"
[push]
burst = 50
[[push.app]]
name = "chat"
[push.app.fcm]
credentials = %q
url = %q
cacertfile = %q
`, adminToken, google.ServiceAccount(t).Reveal(), google.URL, google.CAFile))
	c.server = server
	return &deviceCluster{cluster: c, google: google}
}

// devices sends a request about devices to the admin listener of an instance.
func (n *node) devices(method, query, body string) (status int, answer string) {
	n.c.t.Helper()
	admin := adminAddress.FindStringSubmatch(n.process.log.String())
	if admin == nil {
		n.c.t.Fatal("no admin listener")
	}
	req, err := http.NewRequestWithContext(n.c.t.Context(), method, "http://"+admin[1]+"/api/push/devices"+query, strings.NewReader(body))
	if err != nil {
		n.c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: limit}
	resp, err := client.Do(req)
	if err != nil {
		n.c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		n.c.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// register has an instance register bob's device with that token.
func (n *node) register(token string) (made device) {
	n.c.t.Helper()
	status, answer := n.devices("POST", "", fmt.Sprintf(`{"user": "bob@localhost", "kind": "fcm", "token": %q}`, token))
	var d struct{ Node, Secret string }
	if err := json.Unmarshal([]byte(answer), &d); err != nil || status != http.StatusCreated {
		n.c.t.Fatalf("POST: %d %s", status, answer)
	}
	return device{d.Node, d.Secret}
}

// ask sends an IQ from there and returns the answer.
func (c *deviceCluster) ask(s *xmppserver.Session, from, payload string) xmppserver.Stanza {
	c.t.Helper()
	c.n++
	id := fmt.Sprint("q", c.n)
	if err := s.Send("<iq type='set' from='" + from + "' to='events.localhost' id='" + id + "'>" + payload + "</iq>"); err != nil {
		c.t.Fatal(err)
	}
	for {
		answer, err := s.Receive(contextFor(c.t, limit))
		if err != nil {
			c.t.Fatal(err)
		}
		if answer.ID == id {
			return answer
		}
	}
}

// reaches publishes a text for a device and waits until it has it.
func (c *deviceCluster) reaches(s *xmppserver.Session, d device, token, text string) {
	c.t.Helper()
	if answer := c.ask(s, "localhost", publishIQ(d.node, d.secret, text)); answer.Type != "result" {
		c.t.Fatalf("%s: %+v", text, answer)
	}
	await(c.t, text, func() bool {
		for _, r := range c.google.Requests() {
			if r.Token == token && strings.Contains(r.Message, text) {
				return true
			}
		}
		return false
	})
}

// TestClusterDevices registers devices at either of two instances, kills the one that has
// the link, and publishes for them at the other one.
func TestClusterDevices(t *testing.T) {
	c := newDeviceCluster(t)
	a, b := c.nodes[0], c.nodes[1]
	a.start()
	session := c.accept()
	a.ready("ready")
	b.start()
	b.ready("standby: ")

	first, second := a.register("first"), b.register("second")
	answer := c.ask(session, "bob@localhost/phone", submit("register-device", "kind", "fcm", "token", "third"))
	third := device{valueOf(t, answer.Inner, "node"), valueOf(t, answer.Inner, "secret")}
	if again := b.register("first"); again.node != first.node || again.secret == first.secret {
		t.Errorf("registered at the other instance as %v, was %v", again, first)
	} else {
		first = again
	}
	for token, d := range map[string]device{"first": first, "second": second, "third": third} {
		c.reaches(session, d, token, "to the "+token+" before")
	}

	a.end(syscall.SIGKILL)
	session = c.accept()
	b.ready("ready")
	for token, d := range map[string]device{"first": first, "second": second, "third": third} {
		c.reaches(session, d, token, "to the "+token+" after")
	}
	if _, list := b.devices("GET", "?user=bob@localhost", ""); strings.Count(list, `"node"`) != 3 {
		t.Errorf("of 3 devices there are %s", list)
	}
	if status, answer := b.devices("DELETE", "?node="+third.node, ""); status != http.StatusNoContent {
		t.Errorf("DELETE: %d %s", status, answer)
	}
	if answer := c.ask(session, "localhost", publishIQ(third.node, third.secret, "to nobody")); !strings.Contains(answer.Inner, "item-not-found") {
		t.Errorf("to a device that was removed: %+v", answer)
	}

	c.nats.Kill()
	if status, answer := b.devices("GET", "?user=bob@localhost", ""); status != http.StatusServiceUnavailable {
		t.Errorf("GET while NATS is away: %d %s", status, answer)
	}
}
