package catalog_test

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/backends/catalog"
	"eventpusher/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// full is a configuration of every backend, all of them at address.
func full(address string, handlers ...config.HTTPHandler) *config.Config {
	host, _, _ := net.SplitHostPort(address)
	return &config.Config{
		General: config.General{Hosts: []string{"localhost"}},
		Pusher: config.Modules{
			SNS:    &config.SNS{PMMessagesTopic: "pm", Host: "http://" + address, Region: "eu-west-1", AccessKeyID: "AKIA", SecretAccessKey: "secret", AccountID: "1"},
			HTTP:   &config.HTTP{Handlers: handlers},
			Rabbit: &config.Rabbit{Chat: &config.Exchange{Name: "chat_msg", Type: "topic"}},
		},
		Pools: config.Pools{
			HTTP: map[string]config.HTTPPool{
				"http_pool": {Host: "http://" + address, PathPrefix: "/"},
				"Other":     {Host: "http://" + address, PathPrefix: "/"},
			},
			Rabbit: &config.RabbitPool{Host: host, Port: 1},
		},
	}
}

func TestBuildNamesEachBackend(t *testing.T) {
	for _, tc := range []struct {
		name     string
		handlers []config.HTTPHandler
		want     []string
	}{
		{"no handler", nil, []string{"sns", "rabbit"}},
		{"one handler", []config.HTTPHandler{{PoolName: "http_pool", Path: "/in"}}, []string{"sns", "http:http_pool/58296753", "rabbit"}},
		{"a name of its own", []config.HTTPHandler{{Name: "crm", PoolName: "http_pool"}}, []string{"sns", "crm", "rabbit"}},
		{"several", []config.HTTPHandler{
			{PoolName: "http_pool", Path: "/in"}, {PoolName: "http_pool"}, {PoolName: "Other", Path: "in"}, {PoolName: "Other", Path: "in?token=a"}, {PoolName: "Other", Path: "in?token=b"},
		}, []string{"sns", "http:http_pool/58296753", "http:http_pool", "http:Other/58296753", "http:Other/190f4060", "http:Other/d2027cd7", "rabbit"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			built, err := catalog.Build(full("localhost:1", tc.handlers...), discard)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, b := range built {
				names = append(names, b.Name())
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A service that is down at start, or does not answer, delays nothing.
func TestBuildDialsNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialled := make(chan bool)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			conn.Close()
		}
		dialled <- err == nil
	}()
	cfg := full(l.Addr().String(), config.HTTPHandler{PoolName: "http_pool"})
	cfg.Pools.Rabbit.Port = l.Addr().(*net.TCPAddr).Port
	built, err := catalog.Build(cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range built {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	l.Close()
	if <-dialled {
		t.Error("Build has dialled")
	}
}

func TestBuildWithoutBackends(t *testing.T) {
	for name, cfg := range map[string]*config.Config{
		"nothing":          {},
		"a rabbit section": {Pusher: config.Modules{Rabbit: &config.Rabbit{}}},
		"no handlers":      {Pusher: config.Modules{HTTP: &config.HTTP{}}},
	} {
		if built, err := catalog.Build(cfg, discard); err != nil || len(built) != 0 {
			t.Errorf("%s: %v, %v", name, built, err)
		}
	}
}

func TestBuildReportsAllErrors(t *testing.T) {
	cfg := full("localhost:1", config.HTTPHandler{PoolName: "missing", Path: "hunter2"}, config.HTTPHandler{PoolName: "http_pool"})
	cfg.Pusher.SNS.Host = "ftp://x"
	cfg.Pools.Rabbit = nil
	cfg.Pools.HTTP["http_pool"] = config.HTTPPool{Host: "https://localhost", TLS: &config.TLS{CACertFile: "/nonexistent"}}
	built, err := catalog.Build(cfg, discard)
	if err == nil || built != nil {
		t.Fatalf("%v, %v", built, err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the path is shown: %v", err)
	}
	for _, detail := range []string{"sns_host", "outgoing_pools.http.missing", "cacertfile", "outgoing_pools.rabbit.event_pusher"} {
		if !strings.Contains(err.Error(), detail) {
			t.Errorf("no word about %s in: %v", detail, err)
		}
	}
}
