package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"eventpusher/internal/harness"
)

// TestReload changes every destination, the filters and the served hosts of the program, attached to a
// real server, while its users write. All that the server has accepted arrives, in order and once. Only an
// event whose answer came after the destination's timeout may come again: a busy machine can be that slow.
func TestReload(t *testing.T) {
	const rate, reloads = 300, 8
	server := harness.Prosody(t, harness.ProsodyOptions{EventFeed: true, Hosts: []string{"localhost", "second.localhost"}})
	w := prepareWorld(t)
	file := filepath.Join(t.TempDir(), "config.toml")
	base := w.configuration(server.ComponentAddr(server.Component), "") + fmt.Sprintf("window = 256\n[outbox]\nshutdown_timeout = \"2m\"\npath = %q\n", filepath.Join(t.TempDir(), "outbox"))
	write := func(version int) {
		t.Helper()
		text := strings.NewReplacer(
			"window = 256", fmt.Sprint("window = ", 256+version),
			"[modules.mod_event_pusher.sns]", fmt.Sprintf("[modules.mod_event_pusher.sns]\npublish_retry_count = %d", 2+version),
			`path_prefix = "/webservice"`, fmt.Sprintf("path_prefix = \"/webservice\"\nrequest_timeout = %d", 5000+version),
		).Replace(base)
		if version%2 == 1 {
			text = strings.Replace(text, `hosts = ["localhost"]`, `hosts = ["localhost", "second.localhost"]`, 1)
			text += "[[filter]]\nname = 'odd'\nkeep = 'true'\n"
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	p := run(t, build(t), file)
	w.watch(p)
	await(t, "readiness", w.ready)
	load := press(t, server, 0, rate)
	for version := 1; version <= reloads; version++ {
		w.consumer.Wait(version * rate)
		write(version)
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		await(t, "a reload", func() bool {
			return strings.Count(p.log.String(), "reload: the new configuration holds") == version
		})
		await(t, "readiness", w.ready)
	}
	accepted := load.stop(false)
	w.arrived(0, accepted)
	for name, got := range w.received(t) {
		late := w.timeouts(strings.Fields(name)[0])
		if again := got.repeats(0); again > late {
			t.Errorf("%s has got %d messages twice, and %d answers came too late", name, again, late)
		}
	}
	last := make(map[string]int) // of each conversation
	for _, d := range w.consumer.All() {
		if d.Exchange == w.exchange("presence") {
			continue
		}
		var round, n int
		if _, err := fmt.Sscan(messageOf(t, d.Body), &round, &n); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(d.RoutingKey, " ", n%4, " ", n%2) // of a sender or recipient, and the sender's client
		if n < last[key] {
			t.Errorf("%s: message %d came after %d", d.RoutingKey, n, last[key])
		}
		last[key] = n
	}
	if code := p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("figures: %d reloads under %d messages/s at a real server: %d messages accepted, all arrived", reloads, rate, len(accepted))
}

// timeouts returns how many events the destination whose name begins with a word has answered too late. What
// a reload cuts off is not counted among them.
func (w *world) timeouts(name string) (events int) {
	w.t.Helper()
	_, body := w.get("/metrics")
	failures := regexp.MustCompile(`(?m)^eventpusher_delivery_failures_total\{backend="` + name + `[^"]*",reason="timeout"\} (\d+)$`)
	for _, found := range failures.FindAllStringSubmatch(body, -1) {
		n, err := strconv.Atoi(found[1])
		if err != nil {
			w.t.Fatal(err)
		}
		events += n
	}
	return events
}
