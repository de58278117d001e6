//go:build linux

package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncer starts a connection pooler before the database, for one test. mode is session
// or transaction. What it returns is reached by the pooler's port; Kill and Start are the
// pooler's.
func PgBouncer(t testing.TB, d *Database, mode string) *Database {
	t.Helper()
	b := &Database{Host: d.Host, Name: d.Name, Username: d.Username, Password: d.Password, t: t}
	s, ports := startServer(t, "pgbouncer", 1, func(s *server, ports []int) error { return d.pool(s, ports, mode) })
	b.s, b.Port = s, ports[0]
	return b
}

// pool prepares a pooler.
func (d *Database) pool(s *server, ports []int, mode string) error {
	var as []string
	if os.Getuid() == 0 { // which it refuses to be
		as = []string{"/usr/bin/setpriv", "--reuid=" + postgresUser, "--regid=" + postgresUser, "--clear-groups", "--"}
	}
	users, conf := filepath.Join(s.dir, "users.txt"), filepath.Join(s.dir, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
%[1]s = host=%[2]s port=%[3]d dbname=%[1]s
postgres = host=%[2]s port=%[3]d dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[4]d
auth_type = plain
auth_file = %[5]s
pool_mode = %[6]s
default_pool_size = 3
unix_socket_dir =
`, d.Name, d.Host, d.Port, ports[0], users, mode)
	for path, content := range map[string]string{users: strconv.Quote(d.Username) + " " + strconv.Quote(d.Password) + "\n", conf: text} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	if len(as) > 0 {
		if out, err := exec.Command("chown", "-R", postgresUser+":"+postgresUser, s.dir).CombinedOutput(); err != nil {
			return fmt.Errorf("chown: %w: %s", err, out)
		}
	}
	s.args, s.env = append(slices.Clone(as), "/usr/sbin/pgbouncer", conf), baseEnv(s.dir)
	s.ready = func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		cfg, err := pgx.ParseConfig("sslmode=disable")
		if err != nil {
			return err
		}
		cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = d.Host, uint16(ports[0]), d.Name, d.Username, d.Password
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
	return nil
}
