package doctor

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/internal/finding"
	"eventpusher/internal/xmppserver"
)

// spoken is what a module that has said hello says first.
const spoken = "<message from='localhost' to='events.localhost'><event xmlns='urn:eventpusher:feed:1' source='s' epoch='e' seq='1' kind='session-start' user='alice@localhost/r'/></message>"

// TestRequestsAreDropped has a server that reports and answers nothing, as ejabberd does if
// mod_privilege drops our requests: the hosts are not to blame.
func TestRequestsAreDropped(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}, NoPongs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	link, err := component.New(config.Component{Address: server.Addr(), Name: "events.localhost", Secret: "secret", Forwarders: []string{"localhost"}},
		[]string{"localhost"}, component.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = link.Run(ctx) })
	defer running.Wait()
	defer stop()
	session, err := server.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Send("<message from='localhost' to='events.localhost'><hello xmlns='urn:eventpusher:feed:1' source='s' epoch='e' first='1' next='1' hosts='localhost'/></message>" + spoken); err != nil {
		t.Fatal(err)
	}
	for len(link.Status().Hosts[0].Heard) == 0 {
		time.Sleep(time.Millisecond)
	}
	var found []string
	for _, f := range Server(ctx, link, &config.Config{Component: config.Component{Name: "events.localhost"}, General: config.General{Hosts: []string{"localhost"}}}, time.Minute, nil) {
		if f.Level == finding.Fail {
			found = append(found, f.Text+": "+f.Remedy)
		}
	}
	if len(found) != 1 || !strings.Contains(found[0], "mod_privilege") {
		t.Errorf("found %q", found)
	}
}
