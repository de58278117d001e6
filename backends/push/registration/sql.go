package registration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/internal/jid"
	"eventpusher/internal/tlsconfig"
)

// SQL keeps registrations in PostgreSQL or CockroachDB, in MongooseIM's own table
// (priv/pg.sql, event_pusher_push_subscription), so that the registrations of a
// MongooseIM are there after a change to eventpusher. Several instances can share it.
// Which session has enabled what has no place there and is in a table of our own,
// eventpusher_push_session.
//
// While the database is away every method fails, and works again when it is back.
type SQL struct {
	pool  *pgxpool.Pool
	limit int

	mu    sync.Mutex
	ready bool // the table is there
}

// The defaults of a pool of which the configuration says nothing.
const (
	defaultQueryTimeout = 5 * time.Second
	connectTimeout      = 5 * time.Second
)

// schema is MongooseIM's; what is there is left alone.
const schema = `
CREATE TABLE IF NOT EXISTS event_pusher_push_subscription (
	owner_jid VARCHAR(250) NOT NULL,
	node VARCHAR(250) NOT NULL,
	pubsub_jid VARCHAR(250) NOT NULL,
	form JSON NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (owner_jid, node, pubsub_jid)
);
CREATE INDEX IF NOT EXISTS i_event_pusher_push_subscription ON event_pusher_push_subscription (owner_jid);
CREATE TABLE IF NOT EXISTS eventpusher_push_session (
	owner_jid VARCHAR(250) NOT NULL,
	resource VARCHAR(250) NOT NULL,
	node VARCHAR(250) NOT NULL,
	pubsub_jid VARCHAR(250) NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (owner_jid, resource)
);`

// OpenSQL returns a store for that pool; it connects to nothing before it is used.
// limit is how many services a user can have; below one means MaxPerUser.
func OpenSQL(p *config.RDBMSPool, limit int, log *slog.Logger) (*SQL, error) {
	// Only what the configuration says counts, nothing that libpq would take from the
	// environment or from files in somebody's home.
	cfg, err := pgxpool.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("outgoing_pools.rdbms.default: %w", err)
	}
	c := cfg.ConnConfig
	c.Host, c.Port, c.Database, c.User, c.Password = p.Host, uint16(p.Port), p.Database, p.Username, p.Password.Reveal()
	c.RuntimeParams = map[string]string{"application_name": "eventpusher"}
	c.Fallbacks, c.ConnectTimeout = nil, connectTimeout
	if p.TLS != nil {
		if c.TLSConfig, err = tlsconfig.Client(p.TLS, p.Host); err != nil {
			return nil, fmt.Errorf("outgoing_pools.rdbms.default.connection.tls: %w", err)
		}
	}
	timeout := p.QueryTimeout
	if timeout <= 0 {
		timeout = defaultQueryTimeout
	}
	c.RuntimeParams["statement_timeout"] = strconv.FormatInt(timeout.Milliseconds(), 10)
	cfg.MaxConns = int32(max(p.Workers, 1))
	cfg.MinConns = 0
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("outgoing_pools.rdbms.default: %w", err)
	}
	if limit < 1 {
		limit = MaxPerUser
	}
	log.Debug("push registrations are kept in a database", "address", net.JoinHostPort(p.Host, strconv.Itoa(p.Port)), "database", p.Database)
	return &SQL{pool: pool, limit: limit}, nil
}

// prepare makes sure that the table is there.
func (s *SQL) prepare(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready {
		return nil
	}
	if _, err := s.pool.Exec(ctx, schema); err != nil {
		return s.explain(err)
	}
	s.ready = true
	return nil
}

// explain says whose trouble it is.
func (s *SQL) explain(err error) error {
	if err == nil || errors.Is(err, ErrTooMany) {
		return err
	}
	return fmt.Errorf("database of outgoing_pools.rdbms.default: %w", err)
}

// Enable implements Store.
func (s *SQL) Enable(ctx context.Context, owner jid.JID, service Service) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	form := encodeForm(service.Options)
	return s.explain(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
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
			_, err = tx.Exec(ctx, `INSERT INTO event_pusher_push_subscription (owner_jid, node, pubsub_jid, form, created_at) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (owner_jid, node, pubsub_jid) DO UPDATE SET form = excluded.form, created_at = excluded.created_at`,
				string(owner), service.Node, string(service.PubSub), form, micros(service.Created))
		}
		if err != nil {
			return err
		}
		return s.enter(ctx, tx, owner, service)
	}))
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
	tag, err := tx.Exec(ctx, `UPDATE event_pusher_push_subscription SET form = $4, created_at = $5 WHERE owner_jid = $1 AND node = $2 AND pubsub_jid = $3`,
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
	if err := s.prepare(ctx); err != nil {
		return 0, err
	}
	removed := 0
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "DELETE FROM event_pusher_push_subscription WHERE "+where, args...)
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM eventpusher_push_session AS session WHERE owner_jid = $1 AND NOT EXISTS (
				SELECT 1 FROM event_pusher_push_subscription AS service
				WHERE service.owner_jid = $1 AND service.node = session.node AND service.pubsub_jid = session.pubsub_jid)`, args[0])
		}
		removed = int(tag.RowsAffected())
		return err
	})
	return removed, s.explain(err)
}

// Services implements Store.
func (s *SQL) Services(ctx context.Context, owner jid.JID) ([]Service, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	rows, err := s.pool.Query(ctx, `SELECT pubsub_jid, node, form::text, created_at, (
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
			service.Options, err = decodeForm(form)
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
	if err := s.prepare(ctx); err != nil {
		return 0, err
	}
	err = s.pool.QueryRow(ctx, "SELECT count(*) FROM event_pusher_push_subscription").Scan(&n)
	return n, s.explain(err)
}

// Close implements Store.
func (s *SQL) Close() error {
	s.pool.Close()
	return nil
}

// encodeForm writes the options as the JSON object that MongooseIM keeps.
func encodeForm(options []notify.Field) string {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, o := range options {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(o.Name) // a string always encodes
		value, _ := json.Marshal(o.Value)
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.String()
}

// decodeForm reads them in their order.
func decodeForm(form string) ([]notify.Field, error) {
	d := json.NewDecoder(bytes.NewReader([]byte(form)))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("the form of a registration is no JSON object: %.40q", form)
	}
	var list []notify.Field
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("the form of a registration has a value that is no string: %w", err)
		}
		list = append(list, notify.Field{Name: name.(string), Value: value})
	}
	return list, nil
}
