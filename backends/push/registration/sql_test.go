//go:build linux

package registration

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/internal/harness"
)

func newSQL(t *testing.T, d *harness.Database, password string) *SQL {
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
		storeSuite(t, func(t *testing.T) Store {
			if _, err := conn.Exec(ctx, "DROP TABLE IF EXISTS event_pusher_push_subscription, eventpusher_push_session"); err != nil {
				t.Fatal(err)
			}
			return newSQL(t, d, d.Password)
		})
	})
	t.Run("a row of MongooseIM", func(t *testing.T) {
		_, err := conn.Exec(ctx, `INSERT INTO event_pusher_push_subscription VALUES
			('mim@localhost', 'punode', 'pubsub.localhost', '{"device_id":"tok","service":"apns"}', 1511222222222222)`)
		if err != nil {
			t.Fatal(err)
		}
		got, err := newSQL(t, d, d.Password).Services(ctx, "mim@localhost")
		if err != nil {
			t.Fatal(err)
		}
		want := []Service{{PubSub: "pubsub.localhost", Node: "punode", Options: []notify.Field{{Name: "device_id", Value: "tok"}, {Name: "service", Value: "apns"}},
			Created: time.UnixMicro(1511222222222222).UTC()}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		const wrong = "not-the-password"
		_, err := newSQL(t, d, wrong).Services(ctx, "a@b")
		if err == nil || strings.Contains(err.Error(), wrong) || !strings.Contains(err.Error(), "outgoing_pools.rdbms.default") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("away and back", func(t *testing.T) {
		s := newSQL(t, d, d.Password)
		kept := Service{PubSub: "a.example", Node: "1"}
		if err := s.Enable(ctx, "kept@x", kept); err != nil {
			t.Fatal(err)
		}
		d.Kill()
		if _, err := s.Services(ctx, "kept@x"); err == nil {
			t.Error("no error while the database is away")
		}
		late := newSQL(t, d, d.Password) // started while it is away
		if _, err := late.Count(ctx); err == nil {
			t.Error("no error while the database is away")
		}
		d.Start()
		for _, one := range []*SQL{s, late} {
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
