package cli

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifySystemd tells systemd (Type=notify) that the program has started, as long as ctx lasts
// that it works if the unit asks for that (WatchdogSec), and then that it stops. alive returns
// if the parts of the program answer; one that hangs keeps it from returning. Outside of
// systemd nothing happens.
func notifySystemd(ctx context.Context, alive func(), log *slog.Logger) {
	notify := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Warn("systemd cannot be told", "state", state, "err", err)
		}
	}
	notify(daemon.SdNotifyReady)
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog of systemd asks for what cannot be read", "err", err)
	}
	if every > 0 {
		tick := time.NewTicker(every / 3)
		defer tick.Stop()
		for ctx.Err() == nil {
			alive()
			notify(daemon.SdNotifyWatchdog)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}
	<-ctx.Done()
	notify(daemon.SdNotifyStopping)
}
