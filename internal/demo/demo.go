// Package demo runs the main job without anything installed: a small XMPP
// server plays a scripted chat over the real component protocol, eventpusher
// attaches to it, and receivers in the same process take the events.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/xmppserver"
)

const (
	component   = "events." + host
	secret      = "only for the demo"
	webhookPath = "/events"
	pageAddress = "127.0.0.1:9090"
)

// Options say how long and how fast the demo runs.
type Options struct {
	Count   int     // stop after so many delivered events; 0: until ctx ends
	Rate    float64 // things that the scripted users do a second, above 0
	Version string
	Out     io.Writer    // delivered events, one a line
	Log     *slog.Logger // what eventpusher logs
}

// Run plays the chat until o.Count events were delivered or ctx ends.
func Run(ctx context.Context, o Options) error {
	lines := make(chan string, 16)
	receiver, err := newSink(lines)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "eventpusher-demo-")
	if err != nil {
		return errors.Join(fmt.Errorf("demo: no directory for the outbox: %w", err), receiver.close())
	}
	defer os.RemoveAll(dir)
	server, err := xmppserver.New(xmppserver.Options{Component: component, Secret: secret, Hosts: []string{host}})
	if err != nil {
		return errors.Join(err, receiver.close())
	}
	cfg, problems := config.Parse([]byte(configuration(server.Addr(), receiver.url(), dir)), nil, "")
	if cfg == nil {
		return fmt.Errorf("demo: its own configuration does not load: %v", problems)
	}
	var a *app.App
	for _, cfg.Admin.Listen = range []string{pageAddress, "127.0.0.1:0"} { // another demo may have the first
		if a, err = app.New(cfg, app.Options{Log: o.Log, Version: o.Version}); err == nil {
			break
		}
	}
	if err != nil {
		return errors.Join(err, server.Close(), receiver.close())
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	printed := make(chan error, 1)
	go func() { printed <- printLines(o.Out, a.AdminAddr().String(), lines, o.Count, stop) }()
	var parts errgroup.Group
	parts.Go(func() error { defer stop(); return a.Run(ctx) })
	parts.Go(func() error { defer stop(); return play(ctx, server, o.Rate) })
	received := make(chan error, 1)
	go func() { received <- receiver.serve() }()

	// The receiver is closed last: what waits is still delivered at the end.
	err = parts.Wait()
	err = errors.Join(err, server.Close(), receiver.close(), <-received)
	close(lines)
	return errors.Join(err, <-printed)
}

const introduction = `A small XMPP server, eventpusher and two receivers run in this process. Each line is one event as a receiver took it:
time, where it arrived, what happened, what a filter added. Ctrl-C ends it.

The live page: http://%s/

`

// printLines prints what arrives and asks for the end after count lines, or when
// nothing can be printed any more; what is delivered while everything stops is
// printed too unless a count was asked for.
func printLines(out io.Writer, page string, lines <-chan string, count int, stop func()) error {
	_, err := fmt.Fprintf(out, introduction, page)
	n := 0
	for line := range lines {
		if n++; err == nil && (count == 0 || n <= count) {
			_, err = fmt.Fprintln(out, line)
		}
		if n == count || err != nil {
			stop()
		}
	}
	return err
}

// configuration is an ordinary config.toml.
func configuration(server, receiver, dir string) string {
	return strings.NewReplacer("SERVER", server, "RECEIVER", receiver, "DIR", strconv.Quote(dir)).Replace(`
[component]
address = "SERVER"
name = "` + component + `"
secret = "` + secret + `"

[general]
hosts = ["` + host + `"]

[outbox]
path = DIR

[modules.mod_event_pusher.sns]
presence_updates_topic = "presence"
muc_messages_topic = "rooms"
sns_host = "RECEIVER"
region = "eu-west-1"
access_key_id = "demo"
secret_access_key = "demo"
account_id = "123456789012"

[[modules.mod_event_pusher.http.handlers]]
pool_name = "receiver"
path = "` + webhookPath + `"

[outgoing_pools.http.receiver.connection]
host = "RECEIVER"

[[filter]]
name = "how many sessions the user has"
metadata = { sessions = "event.session_count" }
`)
}
