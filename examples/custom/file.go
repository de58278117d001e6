package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
)

// file has the keys of a [[destination]] of type "file", which appends one line to a file for
// each event.
type file struct {
	Path string
	Sync bool
}

// Keys implements config.Settings.
func (f *file) Keys() []config.Key {
	return []config.Key{
		config.Text("path", &f.Path, ""),
		config.Boolean("sync", &f.Sync, true),
	}
}

// Check implements config.Settings.
func (f *file) Check(s *config.Section) {
	s.Require("path", `write path = "events.jsonl", say`, f.Path == "")
	f.Path = s.Resolve(f.Path)
}

// Build implements catalog.Builder.
func (f *file) Build(d config.Destination, _ *slog.Logger, _ backends.Compile) (backends.Backend, error) {
	chosen, err := form.Choose(d.Choice, nil, "chat", "groupchat", "user_status")
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return &appender{file: *f, name: d.Name, chosen: chosen}, nil
}

// appender is the backend of a file.
type appender struct {
	file
	name   string
	chosen form.Chosen

	mu   sync.Mutex
	open *os.File // nil before the first event, and after an error
}

var (
	_ backends.Backend   = (*appender)(nil)
	_ backends.Preparing = (*appender)(nil)
)

// Name implements backends.Backend.
func (a *appender) Name() string { return a.name }

// Wants implements backends.Backend.
func (a *appender) Wants(e *event.Event) bool { return a.chosen.Wants(e) }

// Limits implements backends.Backend.
func (a *appender) Limits() backends.Limits { return backends.Limits{Lanes: 1, Batch: 100} }

// Prepare implements backends.Preparing. It creates the file.
func (a *appender) Prepare(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened()
}

// opened opens the file unless it is open. a.mu is held.
func (a *appender) opened() (err error) {
	if a.open == nil {
		a.open, err = os.OpenFile(a.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	}
	if errors.Is(err, fs.ErrPermission) {
		return backends.Paused(err) // until the operator has changed it
	}
	return err
}

// Publish implements backends.Backend. All lines of a batch are written at once, or none.
func (a *appender) Publish(_ context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	var lines bytes.Buffer
	for i := range batch {
		m, err := a.chosen.Form.Write(&batch[i])
		if err != nil {
			errs[i] = backends.Permanent(err)
			continue
		}
		lines.Write(m.Body)
		lines.WriteByte('\n')
	}
	if err := a.write(lines.Bytes()); err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
	}
	return errs
}

// write appends lines. After an error it leaves the file as it was, as far as the disk allows.
func (a *appender) write(lines []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.opened(); err != nil {
		return err
	}
	before, err := a.open.Stat()
	if err != nil {
		return errors.Join(err, a.shut())
	}
	_, err = a.open.Write(lines)
	if err == nil && a.Sync {
		err = a.open.Sync()
	}
	if err != nil {
		return errors.Join(err, a.open.Truncate(before.Size()), a.shut())
	}
	return nil
}

// shut closes the file. a.mu is held.
func (a *appender) shut() error {
	if a.open == nil {
		return nil
	}
	err := a.open.Close()
	a.open = nil
	return err
}

// Close implements backends.Backend.
func (a *appender) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shut()
}
