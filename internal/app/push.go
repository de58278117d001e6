package app

import (
	"context"
	"errors"

	"eventpusher/backends/push"
	"eventpusher/backends/push/store"
	"eventpusher/backends/push/xmppside"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// pushParts are those of push beside its backend. They are nil where they are not configured.
type pushParts struct {
	users         *xmppside.Users
	devices       *xmppside.Devices
	registrations store.Registrations
	store         store.Devices

	// What the parts know of the configuration's hosts, of which they have copies.
	served, rooms, delegators jid.Domains
}

// newPushParts returns no parts yet.
func newPushParts(cfg *config.Config) pushParts {
	p := pushParts{served: jid.NewDomains(), rooms: jid.NewDomains(), delegators: jid.NewDomains()}
	p.serve(cfg)
	return p
}

// serve changes which hosts are served.
func (p *pushParts) serve(cfg *config.Config) {
	p.served.Replace(cfg.Served()...)
	p.rooms.Replace(jid.Except(cfg.Component.MUCHosts, cfg.Component.Name)...)
	p.delegators.Replace(xmppside.Delegators(cfg.Served(), cfg.Component.Forwarders)...)
}

// push makes what registers for push, if that is configured.
func (b *builder) push() error {
	for _, one := range b.backends.all() {
		p, ok := one.(*push.Backend)
		if !ok {
			continue
		}
		b.pushing.served = p.Served() // which the backend has as well
		if err := b.users(p); err != nil {
			return err
		}
		return b.devices(p)
	}
	return nil
}

// users opens the store of registrations, and attaches the backend.
func (b *builder) users(p *push.Backend) error {
	store, err := OpenRegistrations(b.cfg(), b.log)
	if err != nil {
		return err
	}
	b.pushing.registrations = store
	o := xmppside.UsersOptions{
		Push: p, Hosts: b.pushing.delegators, Served: b.pushing.served, Log: b.log,
	}
	others, shared := b.box.(xmppside.Relay)
	if shared {
		o.Relay, o.Instances = others, func() int { return b.standing().Instances }
	}
	u := xmppside.NewUsers(o)
	if shared {
		p.AttachUnread(u)
	}
	p.Attach(store, u, func(ctx context.Context, list []event.Event) error { return b.pusher.Forward(ctx, p.Name(), list) })
	if b.control != nil {
		b.control.HandlePush(u)
	}
	b.pushing.users, b.iqs = u, u.Handlers()
	return nil
}

// devices opens the store of the devices that are registered here, if there are to be any.
func (b *builder) devices(p *push.Backend) error {
	if p.Devices() == nil {
		return nil
	}
	store, err := openDevices(b.cfg(), b.log)
	if err != nil {
		return err
	}
	b.pushing.store = store
	p.Devices().Attach(store)
	d := xmppside.NewDevices(xmppside.DevicesOptions{
		Own: jid.Prepare(b.cfg().Component.Name), Apps: p.Devices().Apps(), Store: store, Refused: p.PublishRefused,
		Served: b.pushing.served, Rooms: b.pushing.rooms, Keep: b.pusher.PushAcked, Log: b.log,
	})
	b.pushing.devices, b.iqs, b.api = d, append(b.iqs, d.Handlers()...), d.API()
	return nil
}

// close closes the stores.
func (p *pushParts) close() error {
	var errs []error
	if p.registrations != nil {
		errs = append(errs, p.registrations.Close())
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	return errors.Join(errs...)
}

// lead runs the link for one turn of this instance, and does meanwhile for the others what
// needs it.
func (a *App) lead(turn context.Context) error {
	if a.pushing.users != nil {
		defer a.pushing.users.Lead()()
	}
	return a.link.Run(turn)
}
