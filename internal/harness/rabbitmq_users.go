//go:build linux

package harness

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// AddUser makes a user with permissions on the virtual host, each the regular
// expression of the names that the user may configure, write to and read from. It takes
// a few seconds.
func (b *Broker) AddUser(name, password, configure, write, read string) {
	b.t.Helper()
	// One call, since each of rabbitmqctl boots an Erlang machine of its own.
	// A user of an earlier run of the test is used again.
	b.control("eval", fmt.Sprintf("catch rabbit_auth_backend_internal:add_user(<<%q>>, <<%q>>, <<\"harness\">>), "+
		"ok = rabbit_auth_backend_internal:set_permissions(<<%q>>, <<%q>>, <<%q>>, <<%q>>, <<%q>>, <<\"harness\">>).",
		name, password, name, b.VHost, configure, write, read))
}

// control runs rabbitmqctl for the broker.
func (b *Broker) control(args ...string) {
	b.t.Helper()
	// The wrapper of the same name in /usr/sbin insists on the user rabbitmq.
	cmd := exec.Command(filepath.Join(filepath.Dir(rabbitMQScript), "rabbitmqctl"), args...)
	cmd.Env = b.s.env
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("rabbitmqctl %s: %v\n%s", args[0], err, out)
	}
}
