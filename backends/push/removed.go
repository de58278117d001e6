package push

import (
	"context"
	"errors"
	"fmt"

	"eventpusher/event"
)

// end removes what an account that is no more has registered, as MongooseIM does at its
// hook remove_user, and its devices. The event may come again, and long after the fact: what was
// registered later than its time belongs to a new account of the name.
func (b *Backend) end(ctx context.Context, e *event.Event) error {
	var errs []error
	registrations, err := b.store.Forget(ctx, e.User, e.Time)
	if err != nil {
		errs = append(errs, fmt.Errorf("push registrations: %w", err))
	}
	devices := 0
	if b.o.Devices != nil {
		if devices, err = b.o.Devices.Forget(e.User, e.Time); err != nil {
			errs = append(errs, err)
		}
	}
	b.slots.end(e.User, e.Time)
	if err := errors.Join(errs...); err != nil {
		b.note(e.User, e.ID, failed)
		return err
	}
	b.note(e.User, e.ID, ended)
	b.o.Log.Debug("push: an account is no more", "user", string(e.User), "registrations", registrations, "devices", devices)
	return nil
}
