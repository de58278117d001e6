package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"eventpusher/pusher/outbox"
)

// Lead implements outbox.Elector.
func (e *Engine) Lead(ctx context.Context, lead func(ctx context.Context) error) error {
	select {
	case <-ctx.Done():
		return nil
	case <-e.isSet:
	}
	if err := e.never.Load(); err != nil {
		return *err
	}
	c := e.cluster
	c.want(true)
	for {
		var life context.Context
		select {
		case <-ctx.Done():
			c.want(false)
			select {
			case <-c.link: // it came at the last moment
			default:
			}
			c.release(claimLink)
			return nil
		case life = <-c.link:
		}
		err := e.leadOnce(ctx, life, lead)
		over := ctx.Err() != nil || err != nil
		c.want(!over)
		c.release(claimLink)
		if over {
			return err
		}
	}
}

// leadOnce leads for one life.
func (e *Engine) leadOnce(ctx, life context.Context, lead func(ctx context.Context) error) error {
	if life.Err() != nil {
		return nil
	}
	// Positions first: from here on no predecessor can write any.
	request, cancel := context.WithTimeout(life, requestTimeout)
	err := e.positions.seize(request, e.set.Load().layout, e.cluster.token())
	cancel()
	if err != nil {
		e.log.Warn("the link cannot be taken over yet", "err", err)
		pause(life, time.Second)
		return nil
	}
	e.writer.forget()
	e.log.Info("this instance holds the link to the XMPP server now")
	leading, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(life, stop)()
	err = lead(leading)
	if life.Err() != nil && ctx.Err() == nil {
		e.log.Warn("this instance has given up the link to the XMPP server")
	}
	return err
}

func (c *cluster) want(link bool) {
	c.mu.Lock()
	c.wantLink = link
	c.mu.Unlock()
	signal(c.changed)
}

// leave gives up everything in order.
func (c *cluster) leave() error {
	c.mu.Lock()
	c.leaving = true
	if c.timer != nil {
		c.timer.Stop()
	}
	mine := maps.Clone(c.mine)
	signed, id := c.beats > 0, c.id
	c.mu.Unlock()
	if !signed || !c.e.nc.IsConnected() {
		return nil // others see that by themselves
	}
	for _, h := range mine {
		if h.own != nil {
			h.own.leaving.Store(true)
		}
	}
	saved := c.e.save()
	var parts sync.WaitGroup
	for what, h := range mine {
		parts.Go(func() {
			h.stop()
			<-h.done
			c.release(what)
		})
	}
	parts.Wait()
	c.signing.Wait()
	ctx, cancel := c.e.request()
	defer cancel()
	if err := c.e.set.Load().cluster.Purge(ctx, instancePrefix+id); err != nil {
		return errors.Join(saved, fmt.Errorf("outbox: sign off: %w", err))
	}
	return saved
}

// Standing implements outbox.Elector.
func (e *Engine) Standing() outbox.Standing {
	c := e.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	s := outbox.Standing{Instance: e.o.Instance, Leading: c.mine[claimLink] != nil && c.touchLocked(time.Now()), Of: e.o.Partitions}
	if e.set.Load() == nil {
		return s
	}
	s.Instances = len(c.living())
	for _, h := range c.mine {
		if h.own != nil {
			s.Partitions++
		}
	}
	if k := c.claims[claimLink]; s.Leading {
		s.Leader = s.Instance
	} else if k != nil && k.owner != c.id && c.lives(k.owner) {
		s.Leader = c.members[k.owner].Name
	}
	return s
}
