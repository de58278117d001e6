package app

import (
	"fmt"
	"log/slog"
	"path/filepath"

	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/internal/natsrpc"
)

// OpenRegistrations opens the store of push registrations that the configuration
// names, which has [modules.mod_event_pusher.push]. A database is not dialled before it
// is asked for something.
func OpenRegistrations(cfg *config.Config, log *slog.Logger) (store.Registrations, error) {
	switch c := cfg.Pusher.Push; {
	case c.Backend == "rdbms" && cfg.Pools.RDBMS != nil:
		return store.OpenSQL(cfg.Pools.RDBMS, c.MaxRegistrations, log)
	case c.Backend == engineNATS:
		return openSharedRegistrations(cfg, log)
	default:
		return store.OpenRegistrations(registrationsFile(cfg), c.MaxRegistrations, log)
	}
}

// InspectRegistrations is OpenRegistrations for reading, where no instance runs. The
// error of a store that no instance has made yet is fs.ErrNotExist.
func InspectRegistrations(cfg *config.Config) (store.Registrations, error) {
	if c := cfg.Pusher.Push; c.Backend == engineNATS || c.Backend == "rdbms" && cfg.Pools.RDBMS != nil {
		return OpenRegistrations(cfg, slog.New(slog.DiscardHandler))
	}
	return store.InspectRegistrations(registrationsFile(cfg))
}

func registrationsFile(cfg *config.Config) string {
	return filepath.Join(cfg.Outbox.Path, store.RegistrationsFile)
}

// openSharedRegistrations opens the store beside the shared outbox.
func openSharedRegistrations(cfg *config.Config, log *slog.Logger) (store.Registrations, error) {
	bucket, err := openBucket(cfg, "push", log)
	if err != nil {
		return nil, err
	}
	return store.RegistrationsIn(store.NATS{Bucket: bucket}, cfg.Pusher.Push.MaxRegistrations, log), nil
}

// InspectDevices opens the store of the devices that are registered here where no instance
// runs. The error of one that no instance has made yet is fs.ErrNotExist.
func InspectDevices(cfg *config.Config) (store.Devices, error) {
	if cfg.Outbox.Engine != engineNATS {
		return store.InspectDevices(filepath.Join(cfg.Outbox.Path, store.DevicesFile))
	}
	return openDevices(cfg, slog.New(slog.DiscardHandler))
}

// openDevices opens the store of the devices that are registered here: beside the
// outbox, shared if that is.
func openDevices(cfg *config.Config, log *slog.Logger) (store.Devices, error) {
	if cfg.Outbox.Engine != engineNATS {
		return store.OpenDevices(filepath.Join(cfg.Outbox.Path, store.DevicesFile), cfg.AppServer.MaxDevices, log)
	}
	bucket, err := openBucket(cfg, "devices", log)
	if err != nil {
		return nil, err
	}
	return store.DevicesIn(store.NATS{Bucket: bucket}, cfg.AppServer.MaxDevices, log), nil
}

// openBucket opens a bucket beside the shared outbox, by the last part of its name.
func openBucket(cfg *config.Config, name string, log *slog.Logger) (*natsrpc.Bucket, error) {
	o, err := natsOptions(cfg.Outbox)
	if err != nil {
		return nil, fmt.Errorf("[outbox.nats.tls]: %w", err)
	}
	o.Log = log
	bucket, err := natsrpc.OpenBucket(o.Options, name)
	if err != nil {
		return nil, fmt.Errorf("[outbox.nats]: %w", err)
	}
	return bucket, nil
}
