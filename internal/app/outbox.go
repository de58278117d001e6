package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/catalog"
	"eventpusher/config"
	"eventpusher/internal/control"
	"eventpusher/internal/finding"
	"eventpusher/internal/natsrpc"
	"eventpusher/internal/tlsconfig"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// engineNATS is the value of [outbox] engine for JetStream.
const engineNATS = "nats"

// openOutbox opens the outbox of the configuration for these backends and says
// what it has found.
func openOutbox(all *config.Config, list []backends.Backend, log *slog.Logger) (outbox.Outbox, outbox.Recovery, error) {
	cfg := all.Outbox
	names := make([]string, len(list))
	for i, b := range list {
		names[i] = b.Name()
	}
	if cfg.Engine == engineNATS {
		box, err := openNATS(cfg, names, log)
		return box, outbox.Recovery{}, err
	}
	box, found, err := outbox.OpenEmbedded(embeddedOptions(cfg, log))
	var locked *outbox.LockedError
	switch {
	case errors.As(err, &locked):
		return nil, found, err // says all there is to say
	case err != nil:
		return nil, found, fmt.Errorf("[outbox] path = %q: %w", cfg.Path, err)
	}
	log.Info("outbox opened", "path", cfg.Path, "found", found)
	if err := carryOver(box, catalog.FormerNames(all), log); err != nil {
		return nil, found, errors.Join(err, box.Close())
	}
	return box, found, nil
}

func embeddedOptions(cfg config.Outbox, log *slog.Logger) outbox.EmbeddedOptions {
	return outbox.EmbeddedOptions{Dir: cfg.Path, MaxSize: int64(cfg.MaxSize), SkipCorrupt: cfg.OnDamage == "skip", Log: log}
}

// carryOver renames what the outbox keeps under names that eventpusher gave to backends
// before.
func carryOver(box outbox.Outbox, former []catalog.FormerName, log *slog.Logger) error {
	known, err := box.Backends()
	if err != nil {
		return err
	}
	names := make(map[string]bool)
	for _, b := range known {
		names[b.Name] = true
	}
	// The names of both ways overlap: only those that hold a hash tell which way it was.
	if !slices.ContainsFunc(former, func(f catalog.FormerName) bool { return f.Hashed && names[f.Former] }) {
		return nil
	}
	for again := true; again; {
		again = false
		for _, f := range former {
			if f.Former == f.Name || !names[f.Former] || names[f.Name] {
				continue
			}
			if err := box.Rename(f.Former, f.Name); err != nil {
				return err
			}
			if _, err := outbox.MoveLetters(box, f.Former, f.Name); err != nil {
				return err
			}
			log.Info("the backend has a new name", "backend", f.Name, "was", f.Former)
			delete(names, f.Former)
			names[f.Name], again = true, true
		}
	}
	return nil
}

// lockedBox is an engine with a directory of its own, which holds nothing but
// control.sock.
type lockedBox struct {
	*jetstream.Engine
	unlock func() error
}

// Close implements outbox.Outbox.
func (b lockedBox) Close() error { return errors.Join(b.Engine.Close(), b.unlock()) }

func openNATS(cfg config.Outbox, backends []string, log *slog.Logger) (outbox.Outbox, error) {
	o, err := natsOptions(cfg)
	if err != nil {
		return nil, fmt.Errorf("[outbox.nats.tls]: %w", err)
	}
	// Two instances on one machine must not take each other's socket.
	if err := os.MkdirAll(cfg.Path, 0o700); err != nil {
		return nil, fmt.Errorf("[outbox] path = %q: %w", cfg.Path, err)
	}
	lock, err := outbox.LockDir(cfg.Path, outbox.DefaultLockTimeout)
	if err != nil {
		return nil, err
	}
	o.Backends, o.Log = backends, log
	e, err := jetstream.Open(o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("[outbox.nats]: %w", err), lock.Close())
	}
	return lockedBox{e, lock.Close}, nil
}

// natsOptions are those of [outbox.nats], without backends and log.
func natsOptions(cfg config.Outbox) (jetstream.Options, error) {
	n := cfg.NATS
	o := jetstream.Options{
		Options: natsrpc.Options{
			URL: n.URL, CredentialsFile: n.CredentialsFile, Username: n.Username, Password: n.Password,
			Prefix: n.Stream, Replicas: n.Replicas,
		},
		Partitions: n.Partitions, Takeover: n.Takeover, MaxSize: int64(cfg.MaxSize),
	}
	if n.TLS == nil {
		return o, nil
	}
	host, err := natsHost(n)
	if err == nil {
		o.TLS, err = tlsconfig.Client(n.TLS, host)
	}
	return o, err
}

// natsHost is the name that the server's certificate must bear; empty, the client
// takes that of the server it connects to.
func natsHost(n config.NATS) (string, error) {
	var hosts []string
	for one := range strings.SplitSeq(n.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err == nil { // config has checked it
			hosts = append(hosts, u.Hostname())
		}
	}
	if len(hosts) == 1 {
		return hosts[0], nil
	}
	if (n.TLS.VerifyMode == "selfsigned_peer" || n.TLS.DisableSNI) && n.TLS.ServerName == "" {
		return "", errors.New("with several servers, this way to check certificates needs one name for all: set server_name_indication.host")
	}
	return "", nil
}

// checkOutbox finds what config cannot tell of [outbox.nats].
func checkOutbox(cfg config.Outbox, earlier []config.Problem) []config.Problem {
	if cfg.Engine != engineNATS || config.HasError(earlier, "outbox.nats") {
		return nil
	}
	if _, err := natsOptions(cfg); err != nil {
		return []config.Problem{{Severity: config.Error, Path: "outbox.nats.tls", Text: err.Error(), Remedy: "correct the section"}}
	}
	return []config.Problem{{Severity: config.Note, Path: "outbox.nats", Text: "every NATS server must be nats-server " + jetstream.MinServer + " or later; run and doctor look at the one they reach"}}
}

// OpenLetters reaches the dead letters of an outbox that no instance on this
// machine has open; it waits for at most timeout for one that lets go. The
// function that it returns ends that.
func OpenLetters(ctx context.Context, cfg config.Outbox, timeout time.Duration) (control.Letters, func() error, error) {
	if cfg.Engine != engineNATS {
		l, err := outbox.OpenLetters(cfg.Path, timeout)
		if err != nil {
			return nil, nil, err
		}
		return l, l.Close, nil
	}
	o, err := natsOptions(cfg)
	if err != nil {
		return nil, nil, err
	}
	l, err := jetstream.OpenLetters(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	return l, l.Close, nil
}

// openStopped opens the embedded outbox while no instance runs; it waits for at most
// timeout for one that does.
func openStopped(cfg config.Outbox, timeout time.Duration) (*outbox.Embedded, error) {
	if !outbox.Exists(cfg.Path) {
		return nil, fmt.Errorf("outbox: there is none in %s: %w", cfg.Path, fs.ErrNotExist)
	}
	o := embeddedOptions(cfg, slog.New(slog.DiscardHandler))
	o.LockTimeout = timeout
	box, _, err := outbox.OpenEmbedded(o)
	return box, err
}

// Move gives what the outbox keeps for a backend to another one, while no instance runs,
// and says how many events waited. The error wraps fs.ErrNotExist if nothing is kept.
func Move(ctx context.Context, cfg config.Outbox, from, to string, timeout time.Duration) (moved int, err error) {
	if cfg.Engine == engineNATS {
		return 0, errors.New("start an instance first: with NATS a running instance moves events")
	}
	box, err := openStopped(cfg, timeout)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	known, err := box.Backends()
	if err != nil {
		return 0, err
	}
	var r outbox.Reader // nil: what is kept only has to be renamed
	if slices.ContainsFunc(known, func(b outbox.BackendRecovery) bool { return b.Name == to }) {
		if r, err = box.Reader(to, func() {}); err != nil {
			return 0, err
		}
	}
	return outbox.Move(ctx, box, from, r, to, box.Append)
}

// Forget removes what the outbox keeps for a backend that is not configured any
// more, while no instance runs, and says how much waited for it, in the unit of Unit. The
// error wraps fs.ErrNotExist if nothing is kept.
func Forget(ctx context.Context, cfg config.Outbox, backend string, timeout time.Duration) (waited int, err error) {
	if cfg.Engine != engineNATS {
		box, err := openStopped(cfg, timeout)
		if err != nil {
			return 0, err
		}
		waited, err = box.Forget(backend)
		return waited, errors.Join(err, box.Close())
	}
	o, err := natsOptions(cfg)
	if err == nil {
		waited, err = jetstream.Forget(ctx, o, backend)
	}
	return waited, err
}

// Unit is what Move and Forget count: in a shared outbox the messages of the log, each of
// which holds the events of one group commit.
func Unit(cfg config.Outbox) string {
	if cfg.Engine == engineNATS {
		return "pack"
	}
	return "event"
}

// Place names the outbox for people.
func Place(cfg config.Outbox) string {
	if cfg.Engine == engineNATS {
		return "NATS under " + cfg.NATS.Stream
	}
	return cfg.Path
}

// kept is what the running daemon keeps. Dead letters that no backend has seen pass the
// filters again when they are replayed.
type kept struct {
	box outbox.Outbox
	*pusher.Pusher
}

// DeadLetters implements control.Box.
func (k kept) DeadLetters() outbox.DeadLetters { return k.box.DeadLetters() }

// Waiting implements control.Box.
func (k kept) Waiting(backend string) (int, error) {
	list, err := k.box.Backends()
	if err != nil {
		return 0, err
	}
	return waiting(list, backend)
}

// waiting says how much waits for a backend. The error wraps fs.ErrNotExist if it is not known.
func waiting(list []outbox.BackendRecovery, backend string) (int, error) {
	for _, b := range list {
		if b.Name == backend {
			return b.Waiting + b.Parked, nil
		}
	}
	return 0, fmt.Errorf("nothing is kept for %q: %w", backend, fs.ErrNotExist)
}

// Waiting says what Forget would give up, while no instance runs. It is an error for a shared
// outbox.
func Waiting(cfg config.Outbox, backend string, timeout time.Duration) (int, error) {
	if cfg.Engine == engineNATS {
		return 0, errors.New("a shared outbox says how much waits only while an instance runs")
	}
	i, err := outbox.Inspect(cfg.Path, timeout)
	if err != nil {
		return 0, err
	}
	n, err := waiting(i.Backends, backend)
	return n, errors.Join(err, i.Close())
}

// listenControl opens the socket for commands. Without it everything works but
// the commands that need the running instance, so that is no reason to stop.
func listenControl(dir string, box control.Box, doctor func(context.Context) []finding.Finding, log *slog.Logger) *control.Server {
	s, err := control.Listen(dir, box, doctor, log)
	if err != nil {
		log.Warn("commands such as dlq cannot reach this instance while it runs", "err", err,
			"remedy", "give [outbox] a path that is short and on a file system with sockets")
		return nil
	}
	return s
}
