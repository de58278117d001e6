package devices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/route"
	"eventpusher/backends/push/send/apns"
	"eventpusher/backends/push/store"
)

const (
	// failedRetry is the pause after an error that says nothing of one.
	failedRetry = 5 * time.Second
	// usedPrecision is how exactly it is stored when a device was last told something, and
	// touchDelay how long that may take, so that many devices are one write.
	usedPrecision = 24 * time.Hour
	touchDelay    = time.Second
	// touchTimeout bounds that write, also at the end.
	touchTimeout = 5 * time.Second
)

// Options configure a Delivery.
type Options struct {
	Apps    []App
	Content notify.Content
	// MaxAge is how long after its event a notification still makes sense.
	MaxAge time.Duration
	// Burst is how many notifications a device gets at once, and Interval how long it
	// takes until it may get one more; both are positive.
	Burst    int
	Interval time.Duration
	// Routes are the ways to the providers, which other destinations share.
	Routes *route.Routes
	Log    *slog.Logger // nil is silent
}

// Delivery brings notifications to devices. It is safe for concurrent use.
type Delivery struct {
	o         Options
	store     store.Devices
	providers map[providerKey]*provider
	pacer     *pacer
	now       func() time.Time

	ctx    context.Context // of writes that go on by themselves
	cancel context.CancelFunc
	writes sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	touched map[string]bool // by node, of which it is to be stored that they were told something
}

type providerKey struct {
	app  string
	kind notify.Kind
}

// NewDelivery returns a Delivery, which has to be attached before the first Deliver.
// The applications are its own from then on.
func NewDelivery(o Options) *Delivery {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &Delivery{
		o: o, providers: make(map[providerKey]*provider), pacer: newPacer(o.Burst, o.Interval, o.MaxAge),
		now: time.Now,
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	for i := range o.Apps {
		for kind, sender := range o.Apps[i].senders {
			d.providers[providerKey{o.Apps[i].Name, kind}] = newProvider(o.Apps[i].Name, kind, sender, o.Log)
		}
	}
	return d
}

// Attach says where the devices are kept. The store stays the caller's.
func (d *Delivery) Attach(s store.Devices) { d.store = s }

// Apps returns the applications.
func (d *Delivery) Apps() []App { return d.o.Apps }

// Store returns where the devices are kept; nil before Attach.
func (d *Delivery) Store() store.Devices { return d.store }

// Deliver notifies the device of that node. It blocks until the provider has answered,
// the provider's timeout has passed or ctx ends. The error is
//
//	nil                        the provider has taken it
//	store.ErrUnknown           there is no such device (any more)
//	ErrNoCall                  the device gets nothing but calls
//	ErrCoalesced               a newer notification takes its place
//	backends.ErrGone           the device is dead and was removed
//	*backends.WaitError        to be delivered later; ErrLimited in it says that the device
//	                           had too many lately
//	*backends.PermanentError   the provider will never take it; the device stays
//
// or says what is wrong with the store.
func (d *Delivery) Deliver(ctx context.Context, node string, m *Message) error {
	if key, ok := d.pacer.route(node); ok {
		// While the provider rests, the store is not asked.
		if err := d.o.Routes.Resting(key); err != nil {
			return err
		}
	}
	device, err := d.store.Get(ctx, node)
	if err != nil {
		return err
	}
	p := d.providers[providerKey{device.App, device.Target.Kind}]
	if p == nil {
		return backends.Permanent(fmt.Errorf("application %q with %s is not configured any more", device.App, device.Target.Kind))
	}
	if apns.OnlyCalls(&device.Target) && !m.Summary.Call() {
		return ErrNoCall
	}
	key := p.route(&device.Target)
	if wait, err := d.pacer.enter(node, key, m, d.now()); err != nil {
		return err
	} else if wait > 0 {
		return backends.Wait(wait, ErrLimited)
	}
	n := m.notification(node, d.o.Content, d.o.MaxAge)
	err = d.o.Routes.Do(ctx, key, payer(&device), sendTimeout, func(ctx context.Context) error { return p.sender.Send(ctx, device.Target, n) })
	if err != nil && ctx.Err() != nil {
		err = backends.Wait(failedRetry, ctx.Err())
	} else {
		err = d.conclude(ctx, p, &device, err)
	}
	switch {
	case err == nil:
		d.pacer.left(node, m, told)
	case errors.As(err, new(*backends.WaitError)):
		d.pacer.left(node, m, again)
	default:
		d.pacer.left(node, m, dropped)
	}
	return err
}

// payer returns who answers for what the device costs.
func payer(d *store.Device) string {
	if d.Owner != "" {
		return string(d.Owner)
	}
	return d.Node
}

// conclude says what a provider's answer means for the device.
func (d *Delivery) conclude(ctx context.Context, p *provider, device *store.Device, err error) error {
	if err == nil {
		p.succeeds()
		d.touch(device)
		return nil
	}
	var wait *backends.WaitError
	if errors.As(err, &wait) {
		return err // nothing was sent
	}
	var dead *notify.DeadError
	if errors.As(err, &dead) {
		return d.bury(ctx, p, device, dead)
	}
	var after *backends.RetryAfterError
	switch backends.Reason(err) {
	case "permanent", "too_large":
		if !errors.Is(err, notify.ErrExpired) {
			p.complaints.Add(slog.LevelWarn, "push: a provider refuses a notification for good; it is dropped, the device stays", err, slog.String("provider", p.name))
		}
		return err
	case "paused":
		p.complaints.Add(slog.LevelError, "push: a provider refuses our access; its notifications wait until that is put right", err, slog.String("provider", p.name))
	}
	pause := failedRetry + rand.N(failedRetry/2)
	if errors.As(err, &after) {
		pause = max(pause, after.After)
	}
	return backends.Wait(pause, err)
}

// touch has it stored, within the day, that the device was told something. No delivery
// waits for the disk because of that.
func (d *Delivery) touch(device *store.Device) {
	now := d.now()
	if now.Sub(device.Used) < usedPrecision {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.touched[device.Node] {
		return
	}
	if d.touched == nil {
		d.touched = make(map[string]bool)
		d.writes.Go(func() { d.storeTouched(now) })
	}
	d.touched[device.Node] = true
}

// storeTouched stores what has come together in a moment.
func (d *Delivery) storeTouched(now time.Time) {
	timer := time.NewTimer(touchDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.ctx.Done():
	}
	d.mu.Lock()
	nodes := slices.Collect(maps.Keys(d.touched))
	d.touched = nil
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), touchTimeout)
	defer cancel()
	if err := d.store.Touch(ctx, nodes, now); err != nil {
		d.o.Log.Error("push: when devices were last notified could not be stored", "devices", len(nodes), "err", err)
	}
}

// bury removes a device that is dead, unless it has registered again since.
func (d *Delivery) bury(ctx context.Context, p *provider, device *store.Device, dead *notify.DeadError) error {
	if !p.believes(dead) {
		p.complaints.Add(slog.LevelWarn, "push: a device is said to be dead, but so it would be if we were set up wrongly (topic, sandbox); it stays", dead.Err, slog.String("provider", p.name), slog.Any("device", device.Target))
		return backends.Permanent(dead.Err)
	}
	if !dead.Since.IsZero() && dead.Since.Before(device.Registered) {
		return backends.Permanent(fmt.Errorf("%w, before the device registered again", dead.Err))
	}
	same := func(now *store.Device) bool { return now.Registered.Equal(device.Registered) }
	switch err := d.store.Remove(ctx, device.Node, same); {
	case errors.Is(err, store.ErrUnknown):
		return backends.Permanent(dead.Err)
	case err != nil:
		return fmt.Errorf("push: a device that is dead cannot be removed: %w", err)
	}
	d.o.Log.Debug("push: a device is dead and was removed", "device", device.Target, "node", device.Node, "err", dead)
	return backends.ErrGone
}

// Close ends writes that are under way and releases the connections.
func (d *Delivery) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.writes.Wait()
	var errs []error
	for i := range d.o.Apps {
		errs = append(errs, d.o.Apps[i].close())
	}
	return errors.Join(errs...)
}
