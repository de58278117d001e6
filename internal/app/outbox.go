package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"eventpusher/backends"
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
func openOutbox(cfg config.Outbox, list []backends.Backend, log *slog.Logger) (outbox.Outbox, outbox.Recovery, error) {
	names := make([]string, len(list))
	for i, b := range list {
		names[i] = b.Name()
	}
	if cfg.Engine == engineNATS {
		box, err := openNATS(cfg, names, log)
		return box, outbox.Recovery{}, err
	}
	box, found, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{
		Dir: cfg.Path, Backends: names, MaxSize: int64(cfg.MaxSize), SkipCorrupt: cfg.OnDamage == "skip", Log: log,
	})
	var locked *outbox.LockedError
	switch {
	case errors.As(err, &locked):
		return nil, found, err // says all there is to say
	case err != nil:
		return nil, found, fmt.Errorf("[outbox] path = %q: %w", cfg.Path, err)
	}
	log.Info("outbox opened", "path", cfg.Path, "found", found)
	return box, found, nil
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

// Forget removes what the outbox keeps for a backend that is not configured any
// more, and says how much waited for it, in units of "event" or, where only that
// is known, "pack". The error wraps fs.ErrNotExist when nothing is kept.
func Forget(ctx context.Context, cfg config.Outbox, backend string, timeout time.Duration) (waited int, unit string, err error) {
	if cfg.Engine != engineNATS {
		waited, err = outbox.Forget(cfg.Path, backend, timeout)
		return waited, "event", err
	}
	o, err := natsOptions(cfg)
	if err == nil {
		waited, err = jetstream.Forget(ctx, o, backend)
	}
	return waited, "pack", err
}

// Place names the outbox for people.
func Place(cfg config.Outbox) string {
	if cfg.Engine == engineNATS {
		return "NATS under " + cfg.NATS.Stream
	}
	return cfg.Path
}

// letters are the dead letters of the running daemon: those that no backend has
// seen pass the filters again when they are replayed.
type letters struct {
	box    outbox.Outbox
	pusher *pusher.Pusher
}

func (l letters) DeadLetters() outbox.DeadLetters           { return l.box.DeadLetters() }
func (l letters) Replay(f outbox.LetterFilter) (int, error) { return l.pusher.Replay(f) }

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
