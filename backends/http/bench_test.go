package http_test

import (
	"context"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/backends/backendtest"
	"eventpusher/config"
	"eventpusher/event"
)

// BenchmarkPublish posts through the backend and through bare net/http with the
// same number of connections and a timeout for each request, in turns. ratio is the backend's rate by net/http's.
func BenchmarkPublish(b *testing.B) {
	const workers = 16
	server := httptest.NewServer(nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		io.Copy(io.Discard, r.Body)
	}))
	defer server.Close()
	p := pool(server.URL)
	p.Workers = workers
	p.RequestTimeout = time.Minute
	backend := newBackend(b, config.HTTPHandler{}, p)
	transport := &nethttp.Transport{MaxConnsPerHost: workers, MaxIdleConnsPerHost: workers}
	defer transport.CloseIdleConnections()
	client := nethttp.Client{Transport: transport}

	batch := backendtest.Messages(0, 1)
	body := "author=user0&server=localhost&receiver=bob&message=" + strings.Repeat("x", 120) // as long as the backend's
	bare := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		req, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, server.URL, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		io.Copy(io.Discard, resp.Body)
		return resp.Body.Close()
	}
	parallel := func(n int, post func() error) {
		var lanes sync.WaitGroup
		for range workers {
			lanes.Go(func() {
				for range n / workers {
					if err := post(); err != nil {
						b.Error(err)
					}
				}
			})
		}
		lanes.Wait()
	}
	var ours, theirs backendtest.Timer
	const turn = 100 * workers
	total := 0
	for total < b.N {
		total += turn
		theirs.Run(b, func() { parallel(turn, bare) })
		ours.Run(b, func() { parallel(turn, func() error { return publishOne(backend.Publish, batch) }) })
	}
	backendtest.Report(b, &ours, &theirs, total)
}

func publishOne(publish func(context.Context, []event.Event) []error, batch []event.Event) error {
	return publish(context.Background(), batch)[0]
}
