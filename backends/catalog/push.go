package catalog

import (
	"fmt"
	"log/slog"

	"eventpusher/backends/push"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/route"
	"eventpusher/backends/push/send/mongoosepush"
	"eventpusher/config"
	"eventpusher/internal/jid"
)

// lanesPerWorker is how many notifications are under way for each of wpool.workers. Most
// wait for an answer, and a quarter of them may wait for slow destinations that users choose.
const lanesPerWorker = 32

// newPush builds the backend of [modules.mod_event_pusher.push], with MongoosePush
// behind the virtual push services if it is configured.
func newPush(cfg *config.Config, c *config.Push, log *slog.Logger) (*push.Backend, error) {
	lanes := c.WPool.Workers * lanesPerWorker
	o := push.Options{
		Decider: decide.Decider{Plugin: decide.Plugin(c.Plugin), Rules: c.Rules, Content: notify.Content(c.Content)},
		Virtual: c.VirtualPubsubHosts, Own: jid.Prepare(cfg.Component.Name), Lanes: lanes, MaxAge: c.MaxAge, Log: log,
		Served: jid.NewDomains(cfg.Served()...),
		Routes: route.New(route.Options{Lanes: lanes, Log: log}),
	}
	if m := cfg.Pusher.MongoosePush; m != nil {
		pool, ok := cfg.Pools.HTTP[m.PoolName]
		if !ok {
			return nil, fmt.Errorf("push: MongoosePush needs [%s]: %w", config.HTTPPoolPath(m.PoolName), errNoPool)
		}
		client, err := mongoosepush.New(*m, pool)
		if err != nil {
			return nil, err
		}
		o.Gateway, o.Lacks = client, mongoosepush.Lacks
	}
	if len(cfg.AppServer.Apps) > 0 {
		apps, err := devices.NewApps(cfg.AppServer.Apps)
		if err != nil {
			return nil, err
		}
		o.Devices = devices.NewDelivery(devices.Options{
			Apps: apps, Content: notify.Content(c.Content), MaxAge: c.MaxAge,
			Burst: cfg.AppServer.Burst, Interval: cfg.AppServer.Interval, Routes: o.Routes, Log: log,
		})
	}
	return push.New(o), nil
}
