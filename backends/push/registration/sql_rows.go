package registration

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"eventpusher/internal/jid"
)

// Enable implements Store.
func (s *SQL) Enable(ctx context.Context, owner jid.JID, service Service) error {
	form := encodeForm(&service)
	return s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		// One request of a user after the other, or two could pass the limit together.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", string(owner)); err != nil {
			return err
		}
		var others int
		err := tx.QueryRow(ctx, `SELECT count(*) FROM event_pusher_push_subscription WHERE owner_jid = $1 AND NOT (node = $2 AND pubsub_jid = $3)`,
			string(owner), service.Node, string(service.PubSub)).Scan(&others)
		switch {
		case err != nil:
			return err
		case others >= s.limit:
			err = s.unlessThere(ctx, tx, owner, service, form)
		default:
			_, err = tx.Exec(ctx, `INSERT INTO event_pusher_push_subscription (owner_jid, node, pubsub_jid, form, created_at) VALUES ($1, $2, $3, $4::text::json, $5)
				ON CONFLICT (owner_jid, node, pubsub_jid) DO UPDATE SET form = excluded.form, created_at = excluded.created_at`,
				string(owner), service.Node, string(service.PubSub), form, micros(service.Created))
		}
		if err != nil {
			return err
		}
		return s.enter(ctx, tx, owner, service)
	})
}

// enter notes what the session that asks has enabled last, and forgets those of the
// same service that are too many.
func (s *SQL) enter(ctx context.Context, tx pgx.Tx, owner jid.JID, service Service) error {
	session := service.asking()
	if session == "" {
		return nil
	}
	_, err := tx.Exec(ctx, `INSERT INTO eventpusher_push_session (owner_jid, resource, node, pubsub_jid, created_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (owner_jid, resource) DO UPDATE SET node = excluded.node, pubsub_jid = excluded.pubsub_jid, created_at = excluded.created_at`,
		string(owner), session, service.Node, string(service.PubSub), time.Now().UnixMicro())
	if err == nil {
		_, err = tx.Exec(ctx, `DELETE FROM eventpusher_push_session WHERE owner_jid = $1 AND node = $2 AND pubsub_jid = $3 AND resource NOT IN (
			SELECT resource FROM eventpusher_push_session WHERE owner_jid = $1 AND node = $2 AND pubsub_jid = $3 ORDER BY created_at DESC, resource LIMIT $4)`,
			string(owner), service.Node, string(service.PubSub), keptSessions)
	}
	return err
}

// unlessThere changes a registration that is there; no new one may join.
func (s *SQL) unlessThere(ctx context.Context, tx pgx.Tx, owner jid.JID, service Service, form string) error {
	tag, err := tx.Exec(ctx, `UPDATE event_pusher_push_subscription SET form = $4::text::json, created_at = $5 WHERE owner_jid = $1 AND node = $2 AND pubsub_jid = $3`,
		string(owner), service.Node, string(service.PubSub), form, micros(service.Created))
	if err == nil && tag.RowsAffected() == 0 {
		return ErrTooMany
	}
	return err
}

// Disable implements Store.
func (s *SQL) Disable(ctx context.Context, owner, pubsub jid.JID, node string) (bool, error) {
	n, err := s.delete(ctx, "owner_jid = $1 AND pubsub_jid = $2 AND node = $3", string(owner), string(pubsub), node)
	return n > 0, err
}

// Remove implements Store.
func (s *SQL) Remove(ctx context.Context, owner jid.JID, gone *Service) (bool, error) {
	n, err := s.delete(ctx, "owner_jid = $1 AND pubsub_jid = $2 AND node = $3 AND created_at = $4",
		string(owner), string(gone.PubSub), gone.Node, micros(gone.Created))
	return n > 0, err
}

// DisableAll implements Store.
func (s *SQL) DisableAll(ctx context.Context, owner, pubsub jid.JID) (int, error) {
	return s.delete(ctx, "owner_jid = $1 AND pubsub_jid = $2", string(owner), string(pubsub))
}

// Forget implements Store.
func (s *SQL) Forget(ctx context.Context, owner jid.JID, until time.Time) (int, error) {
	if until.IsZero() {
		return s.delete(ctx, "owner_jid = $1", string(owner))
	}
	return s.delete(ctx, "owner_jid = $1 AND created_at <= $2", string(owner), until.UnixMicro())
}

// delete removes services, of which the first of args is the owner, and what their sessions
// have enabled.
func (s *SQL) delete(ctx context.Context, where string, args ...any) (int, error) {
	removed := 0
	err := s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "DELETE FROM event_pusher_push_subscription WHERE "+where, args...)
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM eventpusher_push_session AS session WHERE owner_jid = $1 AND NOT EXISTS (
				SELECT 1 FROM event_pusher_push_subscription AS service
				WHERE service.owner_jid = $1 AND service.node = session.node AND service.pubsub_jid = session.pubsub_jid)`, args[0])
		}
		removed = int(tag.RowsAffected())
		return err
	})
	return removed, err
}

// Services implements Store.
func (s *SQL) Services(ctx context.Context, owner jid.JID) ([]Service, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	c, release, err := s.acquire(ctx)
	if err != nil {
		return nil, s.explain(err)
	}
	defer release()
	rows, err := c.Query(ctx, `SELECT pubsub_jid, node, form::text, created_at, (
			SELECT array_agg(resource ORDER BY created_at DESC, resource) FROM eventpusher_push_session AS session
			WHERE session.owner_jid = $1 AND session.node = service.node AND session.pubsub_jid = service.pubsub_jid)
		FROM event_pusher_push_subscription AS service WHERE owner_jid = $1
		ORDER BY pubsub_jid COLLATE "C", node COLLATE "C"`, string(owner))
	if err != nil {
		return nil, s.explain(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (service Service, err error) {
		var form string
		var at int64
		if err = row.Scan(&service.PubSub, &service.Node, &form, &at, &service.Sessions); err == nil {
			service.Created = created(at)
			err = decodeForm(form, &service)
		}
		return service, err
	})
	if len(list) == 0 {
		list = nil
	}
	return list, s.explain(err)
}

// Count implements Store.
func (s *SQL) Count(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.prepare(ctx); err != nil {
		return 0, err
	}
	c, release, err := s.acquire(ctx)
	if err != nil {
		return 0, s.explain(err)
	}
	defer release()
	err = c.QueryRow(ctx, "SELECT count(*) FROM event_pusher_push_subscription").Scan(&n)
	return n, s.explain(err)
}
