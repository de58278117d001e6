// Package bench measures the whole program on this machine: a built-in XMPP server sends chat
// messages at a rate, and a built-in receiver, or the operator's own destinations, take them.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/xmppserver"
	"eventpusher/pusher"
)

const (
	host      = "bench.example"
	component = "events." + host
	secret    = "only for the benchmark"
	warmUp    = time.Second
	drainFor  = 30 * time.Second
	hopeless  = 3 * time.Second // without a single delivery
)

// Users is how many users write, each in turn.
const Users = 1000

// SampleKey is the metadata by which a receiver knows events that were made up.
const SampleKey = "eventpusher_sample"

// Options say what is measured.
type Options struct {
	Rate     float64        // messages a second, above 0
	Duration time.Duration  // after a second of warming up
	Config   *config.Config // whose destinations and filters are used; nil: the built-in receiver
	Version  string
	Out      io.Writer
	Log      *slog.Logger
}

// result is what was measured.
type result struct {
	sent     int
	took     time.Duration // of sending
	cpu      time.Duration // of everything in this process
	rss      int64         // bytes, the most
	late     []time.Duration
	backends []pusher.BackendStatus // when sending ended
	before   []pusher.BackendStatus // when warming up ended
	drained  time.Duration          // what it took to deliver the rest; 0: it was given up
}

// Run measures once, and prints what it has found.
func Run(ctx context.Context, o Options) error {
	receiver, err := newReceiver()
	if err != nil {
		return err
	}
	defer receiver.close()
	server, err := xmppserver.New(xmppserver.Options{Component: component, Secret: secret, Hosts: []string{host}})
	if err != nil {
		return err
	}
	defer server.Close()
	cfg, remove, err := configuration(&o, server.Addr(), receiver.url())
	if err != nil {
		return err
	}
	defer remove()
	a, err := app.New(cfg, app.Options{Log: o.Log, Version: o.Version})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var parts errgroup.Group
	parts.Go(func() error { defer stop(); return a.Run(ctx) })
	var r result
	parts.Go(func() error {
		defer stop()
		session, err := server.Accept(ctx)
		if err == nil {
			r, err = measure(ctx, &o, session, a, receiver)
		}
		return err
	})
	if err := parts.Wait(); err != nil {
		return err
	}
	if r.sent == 0 {
		return errors.New("it was interrupted before anything was measured")
	}
	if delivered := r.print(&o); delivered == 0 {
		return errors.New("nothing was delivered")
	}
	return nil
}

// configuration returns what the program runs with, and what removes its outbox.
func configuration(o *Options, server, receiver string) (*config.Config, func(), error) {
	parent := ""
	if o.Config != nil {
		if o.Config.Outbox.Engine != "embedded" {
			return nil, nil, errors.New(`only an outbox of engine = "embedded" can be measured`)
		}
		parent = filepath.Dir(o.Config.Outbox.Path) // the same disk
	}
	dir, err := os.MkdirTemp(parent, "eventpusher-bench-")
	if err != nil {
		return nil, nil, fmt.Errorf("no directory for the outbox: %w", err)
	}
	cfg, problems := config.Parse([]byte(strings.NewReplacer("SERVER", server, "RECEIVER", receiver).Replace(`
[component]
address = "SERVER"
name = "`+component+`"
secret = "`+secret+`"
[general]
hosts = ["`+host+`"]
[[destination]]
name = "receiver"
type = "http"
url = "RECEIVER"
format = "json"
workers = 32
`)), nil, "")
	if cfg == nil {
		return nil, nil, fmt.Errorf("its own configuration does not load: %v", problems)
	}
	if o.Config != nil {
		own := *o.Config
		own.Component, own.General, own.Admin = cfg.Component, cfg.General, cfg.Admin
		own.Filters = append(slices.Clone(own.Filters), config.Filter{Name: "eventpusher bench", Metadata: map[string]string{SampleKey: "true"}})
		cfg = &own
	}
	cfg.Outbox.Path = dir
	return cfg, func() { _ = os.RemoveAll(dir) }, nil
}

// measure sends messages and looks at what becomes of them.
func measure(ctx context.Context, o *Options, session *xmppserver.Session, a *app.App, sink *receiver) (r result, err error) {
	if _, err := send(ctx, session, o.Rate, warmUp); err != nil {
		return r, err
	}
	sink.begin()
	r.before = a.Status().Pusher.Backends
	cpu, began := cpuTime(), time.Now()
	r.sent, err = send(ctx, session, o.Rate, o.Duration)
	r.took, r.cpu = time.Since(began), cpuTime()-cpu
	r.backends = a.Status().Pusher.Backends
	ended := time.Now()
	for err == nil && time.Since(ended) < drainFor {
		waiting, delivered := 0, uint64(0)
		for _, b := range a.Status().Pusher.Backends {
			waiting, delivered = waiting+b.Waiting+b.InFlight, delivered+b.Delivered
		}
		if delivered == 0 && time.Since(ended) > hopeless {
			break
		}
		if waiting == 0 {
			r.drained = time.Since(ended)
			break
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		r.rss = u.Maxrss << 10
	}
	r.late = sink.latencies()
	return r, err
}

// send lets the users write, and returns how many messages they have sent. What the program does
// not read in time is sent later, so that the rate falls.
func send(ctx context.Context, session *xmppserver.Session, rate float64, d time.Duration) (sent int, err error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var b []byte
	for began := time.Now(); ctx.Err() == nil; {
		now := time.Now()
		if now.Sub(began) >= d {
			return sent, nil
		}
		due := int(now.Sub(began).Seconds() * rate)
		for b = b[:0]; sent < due && len(b) < 256<<10; sent++ {
			b = fmt.Appendf(b, "<message from='%[1]s' to='%[2]s'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' from='user%[3]d@%[1]s/phone' to='friend%[3]d@elsewhere.example' id='b%[4]d'><body>%[5]d</body></message></forwarded></message>",
				host, component, sent%Users, sent, now.UnixNano())
		}
		if len(b) > 0 {
			if err := session.Write(b); err != nil {
				return sent, fmt.Errorf("the component has gone: %w", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return sent, ctx.Err()
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (r *result) print(o *Options) (delivered uint64) {
	seconds := r.took.Seconds()
	fmt.Fprintf(o.Out, "messages    %d in %.1f s: %.0f a second of %.0f wanted\n", r.sent, seconds, float64(r.sent)/seconds, o.Rate)
	for i, b := range r.backends {
		n := b.Delivered - r.before[i].Delivered
		delivered += n
		fmt.Fprintf(o.Out, "deliveries  %-20s %.0f a second; %d wait at the end, %d attempts have failed\n", b.Name, float64(n)/seconds, b.Waiting+b.InFlight, b.Failed-r.before[i].Failed)
		if b.LastError != "" {
			fmt.Fprintf(o.Out, "            %-20s %s\n", "", b.LastError)
		}
	}
	if n := len(r.late); n > 0 {
		slices.Sort(r.late)
		at := func(q float64) time.Duration { return r.late[min(int(q*float64(n)), n-1)].Round(10 * time.Microsecond) }
		fmt.Fprintf(o.Out, "latency     from the server's socket to the receiver: p50 %v, p99 %v, p99.9 %v, most %v\n", at(0.5), at(0.99), at(0.999), at(1))
	}
	fmt.Fprintf(o.Out, "processors  %.2f of %d, %s for each delivery, with the built-in server and receiver\n", r.cpu.Seconds()/seconds, runtime.GOMAXPROCS(0), each(r.cpu, delivered))
	fmt.Fprintf(o.Out, "memory      %d MiB at most\n", r.rss>>20)
	fmt.Fprintln(o.Out, "limit       "+r.limit(o))
	var s syscall.Sysinfo_t
	if syscall.Sysinfo(&s) == nil {
		if load := float64(s.Loads[0]) / (1 << 16); load > 1.5*float64(runtime.GOMAXPROCS(0)) {
			fmt.Fprintf(o.Out, "            other programs use this machine, too (load %.1f): the figures are worse than those of an idle one\n", load)
		}
	}
	return delivered
}

func each(cpu time.Duration, n uint64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatFloat(float64(cpu.Microseconds())/float64(n), 'f', 1, 64) + " µs"
}

// limit says what keeps the program from taking more.
func (r *result) limit(o *Options) string {
	busy := r.cpu.Seconds() / r.took.Seconds() / float64(runtime.GOMAXPROCS(0))
	reached := float64(r.sent) / r.took.Seconds()
	slowest, most := "", 0
	for _, b := range r.backends {
		if n := b.Waiting + b.InFlight; n > most && float64(n) > o.Rate {
			slowest, most = b.Name, n
		}
	}
	switch {
	case r.sent < 100:
		return "unknown: these are too few messages to say anything"
	case busy > 0.85:
		return fmt.Sprintf("the processors: they are busy for %.0f %% of the time", busy*100)
	case slowest != "":
		return fmt.Sprintf("the destination %s: more than the messages of a second wait for it", slowest)
	case reached < 0.95*o.Rate:
		return "the disk of the outbox, or other work on this machine: the processors are not busy, and the messages are not read in time"
	}
	return "nothing at this rate: try a higher -rate"
}
