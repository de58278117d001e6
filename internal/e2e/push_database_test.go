package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/harness"
)

// TestPushDatabase keeps registrations in PostgreSQL, over a restart and while the
// database is down.
func TestPushDatabase(t *testing.T) {
	db := harness.PostgreSQL(t)
	server := pushServers[0].start(t)
	start := func() *pushWorld {
		return startPush(t, server, `backend = "rdbms"`, "v3", fmt.Sprintf(`
[outgoing_pools.rdbms.default.connection]
driver = "pgsql"
host = %q
port = %d
database = %q
username = %q
password = %q
`, db.Host, db.Port, db.Name, db.Username, db.Password))
	}
	bob := server.Login(t, "bob", "desk")
	bob.Presence()
	say := speaker(bob)
	plain := func(text string, badge int) pushtest.MongoosePushRequest {
		return request("v3", "dev", "service", "fcm", "alert", alert(text, badge, "bob@localhost"))
	}
	enable := pushEnable("virtual.localhost", "n", "service", "fcm", "device_id", "dev")

	w := start()
	alice := w.login("alice", "phone")
	alice.IQ("set", "", enable)
	leave(alice)
	w.stop()

	w = start()
	say("alice@localhost", "after a restart")
	w.expect("a registration of the instance before", plain("after a restart", 1))

	carol := w.login("carol", "phone")
	db.Kill()
	if answer := carol.Ask("set", "", enable); !strings.Contains(answer, "internal-server-error") || !strings.Contains(answer, "wait") {
		t.Errorf("while the database is down the client is told %s", answer)
	}
	say("alice@localhost", "while the database is down")
	await(t, "an attempt that failed", func() bool { return w.backend("push").LastError != "" })
	if status, _ := w.get("/healthz"); status != http.StatusOK {
		t.Errorf("health: %d", status)
	}
	w.expect("nothing is pushed meanwhile")
	db.Start()
	w.expect("what has waited", plain("while the database is down", 2))
	carol.IQ("set", "", enable)
}
