package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"golang.org/x/sync/errgroup"

	"eventpusher/backends"
	"eventpusher/backends/push/registration"
	"eventpusher/internal/jid"
)

// toldAtOnce is how many of a user's services are told of an event at the same time.
const toldAtOnce = 6

// tellAll notifies the services of a user and returns what became of each. A service that
// does not answer takes half a minute; it may be the first of several, and must not keep
// the others from being told while there is time.
func (b *Backend) tellAll(ctx context.Context, services []registration.Service, sum *Summary) []told {
	results := make([]told, len(services))
	if len(services) == 1 {
		results[0] = b.tell(ctx, &services[0], sum)
		return results
	}
	var all errgroup.Group
	all.SetLimit(toldAtOnce)
	for i := range services {
		all.Go(func() error {
			results[i] = b.tell(ctx, &services[i], sum)
			return nil
		})
	}
	_ = all.Wait() // errors are in results
	return results
}

// tell notifies one service, unless it has been told. A service that will never
// take the notification is no error: the event is done with it.
func (b *Backend) tell(ctx context.Context, s *registration.Service, sum *Summary) told {
	key := tellingKey(s, sum)
	if !b.seen.enter(key, b.o.Now()) {
		b.noteOf(sum.Notice.Recipient, sum.EventID, duplicate, sum.of(s))
		return told{result: duplicate}
	}
	result, err := b.attempt(ctx, s, sum)
	if err != nil {
		b.seen.leave(key) // not told after all
	}
	b.noteOf(sum.Notice.Recipient, sum.EventID, result, sum.of(s))
	return told{result, err}
}

// tellingKey is that of telling a service of a message, by whichever of its events: while
// the answer to one is outstanding another must not send the same again.
func tellingKey(s *registration.Service, sum *Summary) string {
	return sum.Notice.Key + "\x00" + string(s.PubSub) + "\x00" + s.Node
}

// attempt sends the notification and judges the answer as MongooseIM does: an
// error of type cancel, or a device that is gone, ends the registration; other
// errors that will not change do not, and are not tried again. What may change is
// an error.
func (b *Backend) attempt(ctx context.Context, s *registration.Service, sum *Summary) (outcome, error) {
	err := b.send(ctx, s, sum)
	var refusal *Refusal
	var permanent *backends.PermanentError
	switch {
	case err == nil && b.ownService(s):
		return queued, nil
	case err == nil:
		return pushed, nil
	case errors.Is(err, backends.ErrGone),
		errors.As(err, &refusal) && refusal.Type == "cancel":
		if _, err := b.store.Disable(ctx, sum.Notice.Recipient, s.PubSub, s.Node); err != nil {
			return failed, fmt.Errorf("a registration that is gone cannot be removed: %w", err)
		}
		b.o.Log.Debug("push: the device is gone, its registration was removed", "user", string(sum.Notice.Recipient), "service", string(s.PubSub))
		return disabled, nil
	case errors.Is(err, errIncomplete):
		return incomplete, nil
	case errors.As(err, &refusal) && refusal.Type != "wait", errors.As(err, &permanent):
		b.o.Log.Log(ctx, slog.LevelDebug, "push: the service refuses the notification", "user", string(sum.Notice.Recipient), "service", string(s.PubSub), "err", err)
		return refused, nil
	case errors.As(err, new(*backends.WaitError)), errors.Is(err, errSilent), errors.Is(err, errCrowded):
		return waiting, fmt.Errorf("push service %s: %w", s.PubSub, err)
	case errors.Is(err, context.DeadlineExceeded):
		return timedOut, fmt.Errorf("push service %s: %w", s.PubSub, err)
	}
	return failed, fmt.Errorf("push service %s: %w", s.PubSub, err)
}

// errIncomplete is about a registration that MongooseIM would not push for either.
var errIncomplete = errors.New("the registration lacks publish-options that its gateway needs")

// send takes the way to the service.
func (b *Backend) send(ctx context.Context, s *registration.Service, sum *Summary) error {
	switch b.way(s, sum.Notice.Recipient.Domain()) {
	case ByGateway:
		if b.o.Gateway == nil {
			return backends.Permanent(errors.New("no gateway is configured for virtual_pubsub_hosts: add [modules.mod_push_service_mongoosepush]"))
		}
		if len(b.o.Gateway.Lacks(s)) > 0 {
			return errIncomplete
		}
		return b.o.Gateway.Push(ctx, s, sum)
	case ByDevices:
		return b.toDevice(ctx, s, sum)
	}
	return b.network.set(ctx, tellingKey(s, sum), s.PubSub, s.Created, publishPayload(s, sum.Fields))
}

// ownService reports whether we are the push service ourselves.
func (b *Backend) ownService(s *registration.Service) bool {
	return b.o.Devices != nil && b.own.Has(s.PubSub.Bare())
}

// hostPlaceholder stands for the recipient's domain at the end of a virtual host.
const hostPlaceholder = "@HOST@"

// folded writes virtual hosts as the addresses of registrations are.
func folded(hosts []string) []string {
	var list []string
	for _, v := range hosts {
		prefix, ok := strings.CutSuffix(v, hostPlaceholder)
		if ok {
			list = append(list, strings.ToLower(prefix)+hostPlaceholder)
			continue
		}
		for form := range jid.NewDomains(v).Forms() {
			list = append(list, string(form))
		}
	}
	return list
}

// virtual reports whether a service is one of the virtual ones for a recipient on
// that host.
func (b *Backend) virtual(service jid.JID, host string) bool {
	for _, v := range b.o.Virtual {
		if prefix, ok := strings.CutSuffix(v, hostPlaceholder); ok {
			v = prefix + host
		}
		if v == string(service) {
			return true
		}
	}
	return false
}
