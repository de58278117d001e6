package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"eventpusher/backends/push/internal/complain"
	"eventpusher/config"
	"eventpusher/internal/tlsconfig"
)

// SQL implements Model in PostgreSQL, by the owners' bare JIDs, in MongooseIM's own table (priv/pg.sql,
// event_pusher_push_subscription), so that the registrations of a MongooseIM are there
// after a change to eventpusher. Several instances can share it. Which session has enabled
// what has no place there and is in a table of our own, eventpusher_push_session.
//
// It works behind PgBouncer, whose server sessions are shared: it sets no parameter of a
// session, prepares no named statement, and locks within transactions only.
//
// While the database is away every method fails, and works again when it is back.
type SQL struct {
	pool    *pgxpool.Pool
	user    string
	timeout time.Duration

	places     chan struct{} // a connection each
	log        *slog.Logger
	complaints *complain.Log

	mu    sync.Mutex
	ready bool // the tables are there
}

// The defaults of a pool of which the configuration says nothing.
const (
	defaultQueryTimeout = 5 * time.Second
	connectTimeout      = 5 * time.Second
	// sessionTimeout is how long a new connection may take for the first answer.
	sessionTimeout = time.Second
	// sqlTurns is how often a transaction is repeated that gives way to another one.
	sqlTurns = 5
)

// OpenSQL returns a store in that pool, as NewRegistrations; it connects to nothing before it is used.
func OpenSQL(p *config.RDBMSPool, limit int, log *slog.Logger) (*RegistrationLists, error) {
	s, err := newSQL(p, log)
	if err != nil {
		return nil, err
	}
	return NewRegistrations(s, limit), nil
}

func newSQL(p *config.RDBMSPool, log *slog.Logger) (*SQL, error) {
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
	c.DefaultQueryExecMode, c.StatementCacheCapacity, c.DescriptionCacheCapacity = pgx.QueryExecModeExec, 0, 0
	if p.TLS != nil {
		if c.TLSConfig, err = tlsconfig.Client(p.TLS, p.Host); err != nil {
			return nil, fmt.Errorf("outgoing_pools.rdbms.default.connection.tls: %w", err)
		}
	}
	cfg.MaxConns = int32(max(p.Workers, 1))
	cfg.MinConns = 0
	cfg.AfterConnect = hasSession
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("outgoing_pools.rdbms.default: %w", err)
	}
	s := &SQL{pool: pool, user: p.Username, timeout: p.QueryTimeout, places: make(chan struct{}, cfg.MaxConns), log: log, complaints: complain.New(log, time.Now)}
	if s.timeout <= 0 {
		s.timeout = defaultQueryTimeout
	}
	log.Debug("push registrations are kept in a database", "address", net.JoinHostPort(p.Host, strconv.Itoa(p.Port)), "database", p.Database)
	return s, nil
}

// errNoSession says that a pooler lets a new connection wait until another one ends.
var errNoSession = errors.New("the database lets a new connection wait")

// hasSession fails if nobody answers a new connection. PgBouncer in session mode accepts
// more connections than it has sessions, and lets the others wait.
func hasSession(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	if _, err := c.Exec(ctx, "SELECT 1"); err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", errNoSession, err)
	} else if err != nil {
		return err
	}
	return nil
}

// acquire returns a connection, and what gives it back. If the database lets a new
// connection wait, fewer connections are used from then on.
func (s *SQL) acquire(ctx context.Context) (*pgxpool.Conn, func(), error) {
	for {
		select {
		case s.places <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
		c, err := s.pool.Acquire(ctx)
		if err == nil {
			return c, func() { c.Release(); <-s.places }, nil
		}
		others := s.pool.Stat()
		if !errors.Is(err, errNoSession) || others.AcquiredConns()+others.IdleConns() == 0 {
			<-s.places
			return nil, nil, err
		}
		// The place stays taken: the others have the sessions that there are.
		s.log.Warn("the database lets a new connection wait; push uses one less. With PgBouncer in session mode set workers to at most its default_pool_size",
			"connections", cap(s.places))
	}
}

// tables are the tables and how they are made. The first is MongooseIM's.
var tables = [...]struct{ name, create string }{
	{"event_pusher_push_subscription", `CREATE TABLE IF NOT EXISTS event_pusher_push_subscription (
	owner_jid VARCHAR(250) NOT NULL,
	node VARCHAR(250) NOT NULL,
	pubsub_jid VARCHAR(250) NOT NULL,
	form JSON NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (owner_jid, node, pubsub_jid)
)`},
	{"eventpusher_push_session", `CREATE TABLE IF NOT EXISTS eventpusher_push_session (
	owner_jid VARCHAR(250) NOT NULL,
	resource VARCHAR(250) NOT NULL,
	node VARCHAR(250) NOT NULL,
	pubsub_jid VARCHAR(250) NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (owner_jid, resource)
)`},
}

// The SQLSTATEs that are told apart.
const (
	noSuchTable          = "42P01"
	noRight              = "42501"
	serializationFailure = "40001"
	deadlock             = "40P01"
)

func hasState(err error, states ...string) bool {
	var of *pgconn.PgError
	if !errors.As(err, &of) {
		return false
	}
	for _, state := range states {
		if of.Code == state {
			return true
		}
	}
	return false
}

// prepare makes the tables that are not there. Those that are there are used as they are,
// with rights to rows alone. An error names the statement that an administrator has to run.
func (s *SQL) prepare(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready {
		return nil
	}
	c, release, err := s.acquire(ctx)
	if err != nil {
		return s.explain(err)
	}
	defer release()
	for _, table := range tables {
		_, err := c.Exec(ctx, "SELECT 1 FROM "+table.name+" WHERE owner_jid = ''")
		if hasState(err, noSuchTable) {
			if _, err = c.Exec(ctx, table.create); hasState(err, noRight) {
				return s.explain(&missingError{fmt.Sprintf("the table %s is not there, and user %s may not make it; run: %s; and then: %s", table.name, s.user, table.create, s.grant(table.name)), err})
			}
		}
		if hasState(err, noRight) {
			return s.explain(&missingError{fmt.Sprintf("user %s may not use the table %s; run: %s", s.user, table.name, s.grant(table.name)), err})
		}
		if err != nil {
			return s.explain(err)
		}
	}
	s.ready = true
	return nil
}

// grant is the statement that gives the rights to rows.
func (s *SQL) grant(table string) string {
	return "GRANT SELECT, INSERT, UPDATE, DELETE ON " + table + " TO " + pgx.Identifier{s.user}.Sanitize()
}

// missingError says what an administrator of the database has to do.
type missingError struct {
	text string
	err  error
}

// Error implements error.
func (e *missingError) Error() string { return e.text + " (" + e.err.Error() + ")" }

// Unwrap returns what the database says.
func (e *missingError) Unwrap() error { return e.err }

// explain says whose trouble it is.
func (s *SQL) explain(err error) error {
	if err == nil || errors.Is(err, ErrTooMany) {
		return err
	}
	if hasState(err, noRight) && !errors.As(err, new(*missingError)) {
		err = &missingError{"run: " + s.grant(tables[0].name+", "+tables[1].name), err}
	}
	return fmt.Errorf("database of outgoing_pools.rdbms.default: %w", err)
}

// transact runs a transaction within the pool's timeout, once more if it gave way to
// another one.
func (s *SQL) transact(ctx context.Context, do func(context.Context, pgx.Tx) error) error {
	return s.connected(ctx, func(ctx context.Context, c *pgxpool.Conn) (err error) {
		for range sqlTurns {
			err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error { return do(ctx, tx) })
			if !hasState(err, serializationFailure, deadlock) {
				break
			}
		}
		return err
	})
}

// connected calls do with a connection, within the pool's timeout.
func (s *SQL) connected(ctx context.Context, do func(context.Context, *pgxpool.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	c, release, err := s.acquire(ctx)
	if err != nil {
		return s.explain(err)
	}
	defer release()
	return s.explain(do(ctx, c))
}

// Close implements Model.
func (s *SQL) Close() error {
	s.pool.Close()
	return nil
}
