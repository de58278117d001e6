package catalog

import (
	"context"
	"fmt"
	"log/slog"

	"eventpusher/backends/push"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/mongoosepush"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/registration"
	"eventpusher/config"
	"eventpusher/internal/finding"
	"eventpusher/internal/jid"
)

// newPush builds the backend of [modules.mod_event_pusher.push], with MongoosePush
// behind the virtual push services if it is configured.
func newPush(cfg *config.Config, c *config.Push, log *slog.Logger) (*push.Backend, error) {
	o := push.Options{
		Decider: decide.Decider{Plugin: decide.Plugin(c.Plugin), Content: decide.Content(c.Content)},
		Virtual: c.VirtualPubsubHosts, Own: jid.Prepare(cfg.Component.Name), Lanes: c.WPool.Workers, MaxAge: c.MaxAge, Log: log,
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
		o.Gateway = mongooseGateway{client}
	}
	if len(cfg.AppServer.Apps) > 0 {
		apps, err := devices.NewApps(cfg.AppServer.Apps)
		if err != nil {
			return nil, err
		}
		o.Devices = devices.NewDelivery(devices.Options{
			Apps: apps, Content: contents[decide.Content(c.Content)], MaxAge: c.MaxAge,
			Burst: cfg.AppServer.Burst, Interval: cfg.AppServer.Interval, Log: log,
		})
	}
	return push.New(o), nil
}

// contents are the content modes as providers' notifications know them.
var contents = map[decide.Content]notify.Content{
	decide.NoContent: notify.ContentNone, decide.SenderOnly: notify.ContentSender, decide.WithBody: notify.ContentBody,
}

// mongooseGateway hands notifications to MongoosePush.
type mongooseGateway struct{ client *mongoosepush.Client }

// optionDevice is the publish-option by which MongoosePush knows a device.
const optionDevice = "device_id"

// Lacks implements push.Gateway.
func (g mongooseGateway) Lacks(s *registration.Service) (names []string) {
	for _, name := range [...]string{optionDevice, mongoosepush.OptionService} {
		if s.Option(name) == "" {
			names = append(names, name)
		}
	}
	return names
}

// Push implements push.Gateway.
func (g mongooseGateway) Push(ctx context.Context, s *registration.Service, n *push.Summary) error {
	options := make(map[string]string, len(s.Options))
	for _, o := range s.Options {
		options[o.Name] = o.Value
	}
	summary := make(map[string]string, len(n.Fields))
	for _, f := range n.Fields {
		summary[f.Name] = f.Value
	}
	if n.Notice.Generic && summary[notify.KeySender] == "" && options["silent"] != "true" {
		// The sender is not to be told, and MongoosePush takes no alert without a title.
		summary[notify.KeySender] = decide.GenericBody
	}
	return g.client.Publish(ctx, options[optionDevice], options, summary)
}

// Probe implements backends.Probing, under the backend's name.
func (g mongooseGateway) Probe(ctx context.Context) []finding.Finding {
	return []finding.Finding{g.client.Probe(ctx, push.Name)}
}

// Close implements io.Closer.
func (g mongooseGateway) Close() error { return g.client.Close() }
