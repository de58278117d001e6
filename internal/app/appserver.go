package app

import (
	"context"
	"encoding/xml"
	"errors"
	"hash/maphash"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"mellium.im/xmpp/disco"

	"eventpusher/backends/push"
	"eventpusher/backends/push/appserver"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/notify"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
)

// Bounds of what waits to be judged. Whoever comes when they are reached is told to
// try again, as is who has waited for too long: a server keeps its registration then.
const (
	publishQueue   = 4096
	publishTimeout = 20 * time.Second
	commandQueue   = 256
	commandWorkers = 8 // a command may wait for the DNS
	// publishLanes is how many publishes are judged at once, and publishLane how many wait
	// behind each: a shared store is asked through the network.
	publishLanes = 64
	publishLane  = 16
)

// deviceDesk answers the IQs of an app server (XEP-0357): what servers publish for
// devices, and the commands by which users register them. They come from the goroutine
// that reads the stream, which must not wait for a store.
type deviceDesk struct {
	server   *appserver.Server
	store    devices.Store
	push     *push.Backend
	pusher   *pusher.Pusher
	publish  chan *publishing
	commands chan *component.IQ
	// patience is how long a publish may wait until its event is on disk.
	patience time.Duration
}

// publishing is a publish that was not answered yet.
type publishing struct {
	iq *component.IQ
	// read is what the IQ says, once somebody has looked.
	read *appserver.Publish
	// late answers when the time is up. An IQ takes the first answer only.
	late *time.Timer
}

// newDeviceDesk returns the desk of the push backend's devices, nil if there are none.
// It opens the store.
func newDeviceDesk(cfg *config.Config, backend *push.Backend, p *pusher.Pusher, log *slog.Logger) (*deviceDesk, error) {
	delivery := backend.Devices()
	if delivery == nil {
		return nil, nil
	}
	store, err := openDevices(cfg, log)
	if err != nil {
		return nil, err
	}
	delivery.Attach(store)
	served, rooms := jid.NewDomains(cfg.General.Hosts...), jid.NewDomains(cfg.Component.MUCHosts...)
	d := &deviceDesk{
		server: appserver.New(appserver.Options{
			Own: jid.Prepare(cfg.Component.Name), Registry: devices.NewRegistry(store, delivery.Apps()),
			Served: has(served), Room: has(rooms), Refused: backend.PublishRefused, Log: log,
		}),
		store: store, push: backend, pusher: p,
		publish: make(chan *publishing, publishQueue), commands: make(chan *component.IQ, commandQueue),
		patience: publishTimeout,
	}
	return d, nil
}

func has(d jid.Domains) func(domain string) bool {
	return func(domain string) bool { return d.Has(jid.JID(domain)) }
}

// handlers are for component.Options.
func (d *deviceDesk) handlers() []component.IQHandler {
	info, items := xml.Name{Space: disco.NSInfo, Local: "query"}, xml.Name{Space: disco.NSItems, Local: "query"}
	list := []component.IQHandler{
		{
			Name: "publish", Element: xml.Name{Space: appserver.NSPubSub, Local: "pubsub"}, Type: component.Set,
			Identity: component.Identity{Category: "pubsub", Type: "push"}, Features: []string{notify.NS, appserver.NSPubSub + "#publish"}, Handle: d.published,
		},
		{
			Name: "command", Element: xml.Name{Space: appserver.NSCommands, Local: "command"}, Type: component.Set,
			Features: []string{appserver.NSCommands}, Handle: d.commanded,
		},
		{Name: "disco", Element: items, Type: component.Get, Node: appserver.NSCommands, Handle: func(q *component.IQ) { _ = q.Result(d.server.Items()) }},
	}
	for _, node := range appserver.CommandNodes() {
		list = append(list, component.IQHandler{
			Name: "disco", Element: info, Type: component.Get, Node: node, Handle: func(q *component.IQ) { _ = q.Result(appserver.Info(node)) },
		})
	}
	return list
}

// failWith answers with an error of package appserver.
func failWith(q *component.IQ, err error) {
	var e *appserver.Error
	if !errors.As(err, &e) {
		e = appserver.Busy()
	}
	_ = q.Fail(component.StanzaError{Type: e.Type, Condition: e.Condition, Text: e.Text})
}

// published takes a publish.
func (d *deviceDesk) published(q *component.IQ) {
	p := &publishing{iq: q, late: time.AfterFunc(d.patience, func() { failWith(q, appserver.Busy()) })}
	select {
	case d.publish <- p:
	default:
		p.fail(appserver.Busy())
	}
}

func (p *publishing) fail(err error) {
	p.late.Stop()
	failWith(p.iq, err)
}

// accept judges a publish. It is answered once its event is on disk.
func (d *deviceDesk) accept(ctx context.Context, p *publishing) {
	e, err := d.server.Accept(ctx, p.read)
	if err != nil {
		p.fail(err)
		return
	}
	d.pusher.PushAcked([]event.Event{e}, func(err error) {
		if err != nil {
			p.fail(appserver.Busy())
			return
		}
		p.late.Stop()
		_ = p.iq.Result(nil)
	})
}

// commanded takes a command.
func (d *deviceDesk) commanded(q *component.IQ) {
	select {
	case d.commands <- q:
	default:
		failWith(q, appserver.Busy())
	}
}

// run answers until ctx ends.
func (d *deviceDesk) run(ctx context.Context) error {
	var parts errgroup.Group
	lanes := make([]chan *publishing, publishLanes)
	for i := range lanes {
		lanes[i] = make(chan *publishing, publishLane)
		parts.Go(func() error {
			for p := range lanes[i] {
				if ctx.Err() != nil {
					p.fail(appserver.Busy())
					continue
				}
				d.accept(ctx, p)
			}
			return nil
		})
	}
	parts.Go(func() error {
		d.divide(ctx, lanes)
		return nil
	})
	for range commandWorkers {
		parts.Go(func() error {
			for {
				select {
				case q := <-d.commands:
					d.command(ctx, q)
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	return parts.Wait()
}

// divide reads what is published and gives it to the lanes until ctx ends: what is for
// one device to the same, in order.
func (d *deviceDesk) divide(ctx context.Context, lanes []chan *publishing) {
	defer func() {
		for _, lane := range lanes {
			close(lane)
		}
	}()
	seed := maphash.MakeSeed()
	for {
		select {
		case p := <-d.publish:
			var err error
			if p.read, err = appserver.ReadPublish(p.iq.From, p.iq.Raw); err != nil {
				p.fail(err)
				continue
			}
			select {
			case lanes[maphash.String(seed, p.read.Node)%uint64(len(lanes))] <- p:
			case <-ctx.Done():
				p.fail(appserver.Busy())
			}
		case <-ctx.Done():
			d.turnAway()
			return
		}
	}
}

// turnAway answers what nobody looks at any more.
func (d *deviceDesk) turnAway() {
	for {
		select {
		case p := <-d.publish:
			p.fail(appserver.Busy())
		default:
			return
		}
	}
}

func (d *deviceDesk) command(ctx context.Context, q *component.IQ) {
	payload, err := d.server.Command(ctx, q.From, q.Raw)
	if err != nil {
		failWith(q, err)
		return
	}
	_ = q.Result(payload)
}

// api are the paths of the admin listener.
func (d *deviceDesk) api() map[string]http.Handler {
	return map[string]http.Handler{appserver.Path: d.server}
}

// Close closes the store.
func (d *deviceDesk) Close() error { return d.store.Close() }
