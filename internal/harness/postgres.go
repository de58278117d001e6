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

// postgresUser is whom the server runs as where the tests run as root, which it
// refuses to be.
const postgresUser = "postgres"

// Database is a running PostgreSQL with one empty database. Its methods fail the
// test it was made for.
type Database struct {
	Host                     string
	Port                     int
	Name, Username, Password string

	t testing.TB
	s *server
}

// PostgreSQL starts a server for one test; that takes 1-2 s on an idle machine.
func PostgreSQL(t testing.TB) *Database {
	t.Helper()
	d := &Database{Host: "127.0.0.1", Name: "eventpusher", Username: "pusher", Password: "pusher's secret", t: t}
	s, ports := startServer(t, "postgresql", 1, d.prepare)
	d.s, d.Port = s, ports[0]
	return d
}

// Kill ends the server as kill -9 does.
func (d *Database) Kill() { d.t.Helper(); d.must("kill", d.s.kill()) }

// Start starts a killed server on the same port with its data.
func (d *Database) Start() { d.t.Helper(); d.must("start", d.s.start()) }

func (d *Database) must(verb string, err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("%s postgresql: %v\n%s", verb, err, d.s.tail())
	}
}

// Dial opens a connection that is closed with the test.
func (d *Database) Dial() *pgx.Conn {
	d.t.Helper()
	conn, err := d.dial(d.Port, d.Name, WaitLimit)
	if err != nil {
		d.t.Fatalf("connect to postgresql: %v", err)
	}
	d.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (d *Database) dial(port int, database string, limit time.Duration) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cfg, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = d.Host, uint16(port), database, d.Username, d.Password
	return pgx.ConnectConfig(ctx, cfg)
}

// postgresBin returns the directory of the newest server that Debian has installed.
func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no /usr/lib/postgresql/*/bin/postgres (run internal/harness/install.sh)")
	}
	return filepath.Dir(slices.Max(found)), nil
}

func (d *Database) prepare(s *server, ports []int) error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	var as []string
	if os.Getuid() == 0 {
		as = []string{"/usr/bin/setpriv", "--reuid=" + postgresUser, "--regid=" + postgresUser, "--clear-groups", "--"}
	}
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(d.Password+"\n"), 0o644); err != nil {
		return err
	}
	data := filepath.Join(s.dir, "data")
	if len(as) > 0 {
		if out, err := exec.Command("chown", "-R", postgresUser+":"+postgresUser, s.dir).CombinedOutput(); err != nil {
			return fmt.Errorf("chown: %w: %s", err, out)
		}
	}
	args := append(slices.Clone(as), filepath.Join(bin, "initdb"), "-D", data, "-U", d.Username, "-A", "scram-sha-256",
		"--pwfile="+password, "-E", "UTF8", "--locale=C", "--no-sync")
	initdb := exec.Command(args[0], args[1:]...)
	initdb.Dir, initdb.Env = s.dir, baseEnv(s.dir)
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	s.args = append(slices.Clone(as), filepath.Join(bin, "postgres"), "-D", data, "-h", d.Host, "-p", strconv.Itoa(ports[0]),
		"-c", "unix_socket_directories=", "-c", "shared_buffers=16MB", "-c", "max_connections=40")
	s.env = baseEnv(s.dir)
	created := false
	s.ready = func(limit time.Duration) error {
		// Listening is not yet ready: it refuses while it recovers.
		conn, err := d.dial(ports[0], "postgres", limit)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		if !created {
			if _, err := conn.Exec(context.Background(), "CREATE DATABASE "+d.Name); err != nil {
				return err
			}
			created = true
		}
		return nil
	}
	return nil
}
