package xmppside

import (
	"context"
	"encoding/xml"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"mellium.im/xmpp/disco"

	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/internal/complain"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/store"
	"eventpusher/component"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// Bounds of what waits, for a device and for a user: a shared store is asked through the
// network, and a command may wait for the DNS. A request that comes when they are reached, or
// has waited for publishTimeout, is answered that it may be repeated: a server keeps its
// registration then.
var (
	publishLimits = turnLimits{each: 256, all: 8192, bytes: 32 << 20}
	commandLimits = turnLimits{each: 8, all: 512, bytes: 4 << 20}
)

const publishTimeout = 20 * time.Second

// DevicesOptions are what Devices need.
type DevicesOptions struct {
	Own    jid.JID // the component's domain
	Apps   []devices.App
	Store  store.Devices
	Served jid.Domains // whose users register devices
	// Rooms are the domains that have rooms: who writes there is told to devices with the
	// nick, others without their session.
	Rooms jid.Domains
	// Refused is told which server has published for a node in vain, and why:
	// store.ErrUnknown or store.ErrSecret.
	Refused func(ctx context.Context, server jid.JID, node string, why error)
	// Keep keeps events. kept is called once, by any goroutine: with nil when they are on
	// disk, else with why they are not. It must not block, and neither does Keep.
	Keep func(events []event.Event, kept func(error))
	Log  *slog.Logger     // nil is silent
	Now  func() time.Time // default time.Now
}

// Devices is the app server (XEP-0357): it takes what servers publish for devices, and the
// commands and HTTP requests by which users and applications register them. It is safe for
// concurrent use.
//
// IQs come from the goroutine that reads the stream, which must not wait for a store.
type Devices struct {
	o                  DevicesOptions
	registry           *devices.Registry
	complaints         *complain.Log
	publishes, answers *turns
	// patience is how long a publish may wait until its event is on disk.
	patience time.Duration
}

// NewDevices returns Devices.
func NewDevices(o DevicesOptions) *Devices {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Devices{
		o: o, registry: devices.NewRegistry(o.Store, o.Apps), complaints: complain.New(o.Log, o.Now),
		publishes: newTurns(publishLimits), answers: newTurns(commandLimits), patience: publishTimeout,
	}
}

// Handlers are for component.Options.
func (d *Devices) Handlers() []component.IQHandler {
	info, items := xml.Name{Space: disco.NSInfo, Local: "query"}, xml.Name{Space: disco.NSItems, Local: "query"}
	list := []component.IQHandler{
		{
			Name: "publish", Element: xml.Name{Space: notify.NSPubSub, Local: "pubsub"}, Type: component.Set,
			Identity: component.Identity{Category: "pubsub", Type: "push"}, Features: []string{notify.NS, notify.NSPubSub + "#publish"}, Handle: d.published,
		},
		{
			Name: "command", Element: xml.Name{Space: nsCommands, Local: "command"}, Type: component.Set,
			Features: []string{nsCommands}, Handle: d.commanded,
		},
		{Name: "disco", Element: items, Type: component.Get, Node: nsCommands, Handle: func(q *component.IQ) { _ = q.Result(d.items()) }},
	}
	for _, c := range commandNames {
		list = append(list, component.IQHandler{
			Name: "disco", Element: info, Type: component.Get, Node: c.node, Handle: func(q *component.IQ) { _ = q.Result(commandInfo(q.Node)) },
		})
	}
	return list
}

// failWith answers with a *component.StanzaError.
func failWith(q *component.IQ, err error) {
	var e *component.StanzaError
	if !errors.As(err, &e) {
		e = busy()
	}
	_ = q.Fail(*e)
}

// published takes a publish. It is answered once its event is on disk. What is for one
// device is looked at in order.
func (d *Devices) published(q *component.IQ) {
	p, err := readPublish(q.From, q.Raw)
	if err != nil {
		failWith(q, err)
		return
	}
	// An IQ takes the first answer only.
	late := time.AfterFunc(d.patience, func() { failWith(q, busy()) })
	answer := func(err error) {
		late.Stop()
		if err != nil {
			failWith(q, err)
			return
		}
		_ = q.Result(nil)
	}
	job := func(ctx context.Context) {
		if ctx.Err() != nil {
			answer(busy())
			return
		}
		e, err := d.accept(ctx, p)
		if err != nil {
			answer(err)
			return
		}
		d.o.Keep([]event.Event{e}, func(err error) {
			if err != nil {
				err = busy()
			}
			answer(err)
		})
	}
	if !d.publishes.enter(p.node, len(q.Raw), job) {
		answer(busy())
	}
}

// commanded takes a command.
func (d *Devices) commanded(q *component.IQ) {
	if len(q.Raw) > maxRequest {
		fail(q, notAcceptable)
		return
	}
	job := func(ctx context.Context) {
		payload, err := d.command(ctx, q.From, q.Raw)
		if err != nil {
			failWith(q, err)
			return
		}
		_ = q.Result(payload)
	}
	if !d.answers.enter(string(q.From.Bare()), len(q.Raw), job) {
		failWith(q, busy())
	}
}

// Run answers until ctx ends. Then it tells those that still wait to try again.
func (d *Devices) Run(ctx context.Context) error {
	commands := make(chan error, 1)
	go func() { commands <- d.answers.run(ctx) }()
	return errors.Join(d.publishes.run(ctx), <-commands)
}

// API are the paths of the admin listener.
func (d *Devices) API() map[string]http.Handler { return map[string]http.Handler{Path: d} }
