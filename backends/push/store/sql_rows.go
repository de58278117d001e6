package store

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"eventpusher/internal/jid"
)

// Change implements Model: it writes the rows that edit has changed. Changes of one
// user come one after the other.
func (s *SQL) Change(ctx context.Context, owner string, edit func([]Service) ([]Service, bool, error)) error {
	return s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", owner); err != nil {
			return err
		}
		before, err := s.read(ctx, tx, owner)
		if err != nil {
			return err
		}
		list := slices.Clone(before)
		for i := range list {
			list[i].Sessions = slices.Clone(list[i].Sessions)
		}
		list, changed, err := edit(list)
		if err != nil || !changed {
			return err
		}
		if err := writeServices(ctx, tx, owner, before, list); err != nil {
			return err
		}
		return writeSessions(ctx, tx, owner, before, list)
	})
}

// writeServices writes what differs between two lists in the order of services.
func writeServices(ctx context.Context, tx pgx.Tx, owner string, before, after []Service) error {
	for _, gone := range before {
		if _, there := slices.BinarySearchFunc(after, gone, byNode); there {
			continue
		}
		if _, err := tx.Exec(ctx, "DELETE FROM event_pusher_push_subscription WHERE owner_jid = $1 AND node = $2 AND pubsub_jid = $3",
			owner, gone.Node, string(gone.PubSub)); err != nil {
			return err
		}
	}
	for i := range after {
		one := &after[i]
		form, at := encodeForm(one), micros(one.Created)
		if j, there := slices.BinarySearchFunc(before, *one, byNode); there && at == micros(before[j].Created) && form == encodeForm(&before[j]) {
			continue
		}
		if _, err := tx.Exec(ctx, `INSERT INTO event_pusher_push_subscription (owner_jid, node, pubsub_jid, form, created_at) VALUES ($1, $2, $3, $4::text::json, $5)
			ON CONFLICT (owner_jid, node, pubsub_jid) DO UPDATE SET form = excluded.form, created_at = excluded.created_at`,
			owner, one.Node, string(one.PubSub), form, at); err != nil {
			return err
		}
	}
	return nil
}

// session is a row of eventpusher_push_session. The newest ones have the largest place.
type session struct {
	resource, node string
	pubsub         jid.JID
	place          int
}

// sessionsOf returns the sessions of a list.
func sessionsOf(list []Service) (all []session) {
	for i := range list {
		for j, resource := range list[i].Sessions {
			all = append(all, session{resource, list[i].Node, list[i].PubSub, -j})
		}
	}
	slices.SortFunc(all, func(a, b session) int { return cmp.Compare(a.resource, b.resource) })
	return all
}

// writeSessions writes the sessions anew, if they differ: there are a few of a user.
func writeSessions(ctx context.Context, tx pgx.Tx, owner string, before, after []Service) error {
	all := sessionsOf(after)
	if slices.Equal(sessionsOf(before), all) {
		return nil
	}
	if _, err := tx.Exec(ctx, "DELETE FROM eventpusher_push_session WHERE owner_jid = $1", owner); err != nil {
		return err
	}
	now := time.Now().UnixMicro()
	for _, one := range all {
		if _, err := tx.Exec(ctx, "INSERT INTO eventpusher_push_session (owner_jid, resource, node, pubsub_jid, created_at) VALUES ($1, $2, $3, $4, $5)",
			owner, one.resource, one.node, string(one.pubsub), now+int64(one.place)); err != nil {
			return err
		}
	}
	return nil
}

// Get implements Model.
func (s *SQL) Get(ctx context.Context, owner string) (list []Service, err error) {
	err = s.connected(ctx, func(ctx context.Context, c *pgxpool.Conn) error {
		list, err = s.read(ctx, c, owner)
		return err
	})
	return list, err
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// read returns the services of a user in their order. One whose form cannot be read has none,
// so that the user can enable it again.
func (s *SQL) read(ctx context.Context, c querier, owner string) ([]Service, error) {
	rows, err := c.Query(ctx, `SELECT pubsub_jid, node, form::text, created_at, (
			SELECT array_agg(resource ORDER BY created_at DESC, resource) FROM eventpusher_push_session AS session
			WHERE session.owner_jid = $1 AND session.node = service.node AND session.pubsub_jid = service.pubsub_jid)
		FROM event_pusher_push_subscription AS service WHERE owner_jid = $1
		ORDER BY pubsub_jid COLLATE "C", node COLLATE "C"`, owner)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (service Service, err error) {
		var form string
		var at int64
		if err = row.Scan(&service.PubSub, &service.Node, &form, &at, &service.Sessions); err != nil {
			return service, err
		}
		service.Created = created(at)
		if wrong := decodeForm(form, &service); wrong != nil {
			service.Options, service.Rules = nil, nil
			s.complaints.Add(slog.LevelWarn, "push: the form of a registration cannot be read; its user has to register again", wrong)
		}
		return service, nil
	})
	if len(list) == 0 {
		list = nil
	}
	return list, err
}

// Count implements Model.
func (s *SQL) Count(ctx context.Context) (n int, err error) {
	err = s.connected(ctx, func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, "SELECT count(*) FROM event_pusher_push_subscription").Scan(&n)
	})
	return n, err
}
