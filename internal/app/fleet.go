package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"eventpusher/backends"
	"eventpusher/backends/catalog"
	"eventpusher/pusher/filter"
)

// destination is a backend with what it was built from.
type destination struct {
	part     catalog.Part
	backend  backends.Backend
	retired  chan struct{} // closed when it is to go
	prepared chan struct{} // closed when prepare has returned
}

func newDestination(part catalog.Part, log *slog.Logger) (*destination, error) {
	b, err := part.Build(log, filter.CompileValue)
	return &destination{part: part, backend: b, retired: make(chan struct{}), prepared: make(chan struct{})}, err
}

// prepare is the function of this name, until the destination is retired.
func (d *destination) prepare(ctx context.Context, log *slog.Logger) {
	defer close(d.prepared)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-d.retired:
			cancel()
		case <-ctx.Done():
		}
	}()
	prepare(ctx, d.backend, log)
	cancel()
	<-watching
}

// retire ends prepare, which was called, and closes the backend. Nothing is published any more.
func (d *destination) retire() error {
	close(d.retired)
	<-d.prepared
	return d.backend.Close()
}

// fleet is all destinations. It is safe for concurrent use.
type fleet struct {
	mu   sync.Mutex
	list []*destination
}

// build makes the destinations of a configuration; all errors are reported at once.
func (f *fleet) build(parts []catalog.Part, log *slog.Logger) error {
	list := make([]*destination, 0, len(parts))
	var errs []error
	for _, part := range parts {
		d, err := newDestination(part, log)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, d)
	}
	f.set(list) // also after errors, so that they are closed
	return errors.Join(errs...)
}

func (f *fleet) get() []*destination {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list
}

func (f *fleet) set(list []*destination) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = list
}

// all returns the backends.
func (f *fleet) all() []backends.Backend { return backendsOf(f.get()) }

func backendsOf(list []*destination) []backends.Backend {
	all := make([]backends.Backend, len(list))
	for i, d := range list {
		all[i] = d.backend
	}
	return all
}

// names returns the names of the backends.
func (f *fleet) names() []string { return namesOf(f.get()) }

func namesOf(list []*destination) []string {
	names := make([]string, len(list))
	for i, d := range list {
		names[i] = d.part.Name
	}
	return names
}
