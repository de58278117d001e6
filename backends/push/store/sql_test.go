//go:build linux

package store

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/internal/harness"
	"eventpusher/internal/jid"
)

func openSQL(t *testing.T, d *harness.Database, password string) *RegistrationLists {
	t.Helper()
	s, err := OpenSQL(&config.RDBMSPool{
		PoolOptions: config.PoolOptions{Workers: 4}, Driver: "pgsql", Host: d.Host, Port: d.Port,
		Database: d.Name, Username: d.Username, Password: config.Secret(password),
	}, testLimit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSQL(t *testing.T) {
	d := harness.PostgreSQL(t)
	ctx := context.Background()
	conn := d.Dial()
	t.Run("as every store", func(t *testing.T) {
		registrationSuite(t, func(t *testing.T) Registrations {
			if _, err := conn.Exec(ctx, "DROP TABLE IF EXISTS event_pusher_push_subscription, eventpusher_push_session"); err != nil {
				t.Fatal(err)
			}
			return openSQL(t, d, d.Password)
		})
	})
	t.Run("a row of MongooseIM", func(t *testing.T) {
		_, err := conn.Exec(ctx, `INSERT INTO event_pusher_push_subscription VALUES
			('mim@localhost', 'punode', 'pubsub.localhost', '{"device_id":"tok","service":"apns"}', 1511222222222222)`)
		if err != nil {
			t.Fatal(err)
		}
		got, err := openSQL(t, d, d.Password).Services(ctx, "mim@localhost")
		if err != nil {
			t.Fatal(err)
		}
		want := []Service{{PubSub: "pubsub.localhost", Node: "punode", Options: []notify.Field{{Name: "device_id", Value: "tok"}, {Name: "service", Value: "apns"}},
			Created: time.UnixMicro(1511222222222222).UTC()}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a form that cannot be read", func(t *testing.T) {
		for _, form := range []string{`{"device_id":1}`, `[]`, `{"device_id":"tok","urn:eventpusher:push:rules":"{"}`} {
			_, err := conn.Exec(ctx, `INSERT INTO event_pusher_push_subscription VALUES ('odd@localhost', 'n', 'pubsub.localhost', $1, 1511222222222222)`, form)
			if err != nil {
				t.Fatal(err)
			}
			s := openSQL(t, d, d.Password)
			want := []Service{{PubSub: "pubsub.localhost", Node: "n", Created: time.UnixMicro(1511222222222222).UTC()}}
			if got, err := s.Services(ctx, "odd@localhost"); err != nil || cmp.Diff(want, got) != "" {
				t.Errorf("%s: %v, %s", form, err, cmp.Diff(want, got))
			}
			anew := Service{PubSub: "pubsub.localhost", Node: "n", Options: []notify.Field{{Name: "device_id", Value: "tok"}}, Created: time.UnixMicro(1611222222222222).UTC()}
			if err := s.Enable(ctx, "odd@localhost", anew); err != nil {
				t.Errorf("%s: %v", form, err)
			}
			if got, err := s.Services(ctx, "odd@localhost"); err != nil || cmp.Diff([]Service{anew}, got) != "" {
				t.Errorf("%s: %v, %s", form, err, cmp.Diff([]Service{anew}, got))
			}
			if n, err := s.Forget(ctx, "odd@localhost", time.Time{}); n != 1 || err != nil {
				t.Errorf("%s: forgot %d, %v", form, n, err)
			}
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		const wrong = "not-the-password"
		_, err := openSQL(t, d, wrong).Services(ctx, "a@b")
		if err == nil || strings.Contains(err.Error(), wrong) || !strings.Contains(err.Error(), "outgoing_pools.rdbms.default") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("away and back", func(t *testing.T) {
		s := openSQL(t, d, d.Password)
		kept := Service{PubSub: "a.example", Node: "1"}
		if err := s.Enable(ctx, "kept@x", kept); err != nil {
			t.Fatal(err)
		}
		d.Kill()
		if _, err := s.Services(ctx, "kept@x"); err == nil {
			t.Error("no error while the database is away")
		}
		late := openSQL(t, d, d.Password) // started while it is away
		if _, err := late.Count(ctx); err == nil {
			t.Error("no error while the database is away")
		}
		d.Start()
		for _, one := range []*RegistrationLists{s, late} {
			got, err := one.Services(ctx, "kept@x")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Service{kept}, got); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// TestPgBouncer: a pooler shares server sessions, so that nothing may depend on one. Many
// stores, one after another, are what is left of restarts.
func TestPgBouncer(t *testing.T) {
	d := harness.PostgreSQL(t)
	conn := d.Dial()
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			b := harness.PgBouncer(t, d, mode)
			registrationSuite(t, func(t *testing.T) Registrations {
				if _, err := conn.Exec(t.Context(), "DROP TABLE IF EXISTS event_pusher_push_subscription, eventpusher_push_session"); err != nil {
					t.Fatal(err)
				}
				return openSQL(t, b, b.Password)
			})
			for range 3 {
				s := openSQL(t, b, b.Password)
				var all sync.WaitGroup
				for i := range 40 {
					all.Go(func() {
						owner := jid.JID(fmt.Sprint("user", i, "@x"))
						if err := s.Enable(t.Context(), owner, Service{PubSub: "a.example", Node: "1", Options: []notify.Field{{Name: "a", Value: "'b'"}}}); err != nil {
							t.Error(err)
						}
						if got, err := s.Services(t.Context(), owner); err != nil || len(got) != 1 || got[0].Option("a") != "'b'" {
							t.Errorf("%v, %v", got, err)
						}
					})
				}
				all.Wait()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestRights: rights to rows are enough where the tables are there. Where something is
// missing, the error names the statement to run, and after that all is well.
func TestRights(t *testing.T) {
	d := harness.PostgreSQL(t)
	conn := d.Dial()
	run := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	run(`CREATE ROLE "row user" LOGIN PASSWORD 'rows'`)
	run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	limited := *d
	limited.Username = "row user"
	s := openSQL(t, &limited, "rows")
	said := 0
	for {
		err := s.Enable(t.Context(), "bob@x", Service{PubSub: "a.example", Node: "1"})
		if err == nil {
			break
		}
		_, statements, ok := strings.Cut(err.Error(), "run: ")
		if said++; !ok || said > 4 {
			t.Fatalf("attempt %d: %v", said, err)
		}
		statements, _, _ = strings.Cut(statements, " (ERROR")
		for statement := range strings.SplitSeq(statements, "; and then: ") {
			run(statement)
		}
	}
	if said != 2 {
		t.Errorf("%d times something was missing, want 2: each table", said)
	}
	run(`REVOKE DELETE ON event_pusher_push_subscription FROM "row user"`)
	if _, err := s.Disable(t.Context(), "bob@x", "a.example", "1"); err == nil || !strings.Contains(err.Error(), `run: GRANT SELECT, INSERT, UPDATE, DELETE ON event_pusher_push_subscription, eventpusher_push_session TO "row user"`) {
		t.Errorf("got %v", err)
	}
}
