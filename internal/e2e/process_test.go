package e2e

import (
	"encoding/json"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/component/eventfeed"
	"eventpusher/pusher"
)

// processLog keeps what a process writes. Safe for concurrent use.
type processLog struct {
	to   io.Writer
	mu   sync.Mutex
	text strings.Builder
}

func (l *processLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.text.Write(p)
	l.mu.Unlock()
	return l.to.Write(p)
}

func (l *processLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// says waits until the process has logged a line with all these texts.
func (p *process) says(texts ...string) {
	p.t.Helper()
	await(p.t, strings.Join(texts, " … ")+" in the log", func() bool {
		for line := range strings.Lines(p.log.String()) {
			all := true
			for _, text := range texts {
				all = all && strings.Contains(line, text)
			}
			if all {
				return true
			}
		}
		return false
	})
}

var adminAddress = regexp.MustCompile(`msg="admin listening" address=(\S+)`)

// watch makes the admin listener of p the one that w asks.
func (w *world) watch(p *process) {
	p.t.Helper()
	p.says("admin listening")
	w.admin = "http://" + adminAddress.FindStringSubmatch(p.log.String())[1]
}

// backend returns the status of the backend whose name begins with a word.
func (w *world) backend(name string) pusher.BackendStatus {
	w.t.Helper()
	_, body := w.get("/api/status")
	var status struct {
		Pusher struct {
			Backends []struct {
				pusher.BackendStatus
				// What has no reverse of MarshalText.
				State     string  `json:"breaker"`
				OldestAge float64 `json:"oldest_age_seconds"`
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		w.t.Fatal(err)
	}
	for _, b := range status.Pusher.Backends {
		if strings.HasPrefix(b.Name, name) {
			b.BackendStatus.OldestAge = pusher.Age(b.OldestAge * float64(time.Second))
			return b.BackendStatus
		}
	}
	w.t.Fatalf("no backend %s in %s", name, body)
	return pusher.BackendStatus{}
}

// sources returns the status of the sources of the event-feed.
func (w *world) sources() []eventfeed.Status {
	w.t.Helper()
	_, body := w.get("/api/status")
	var status struct {
		Component struct{ Sources []eventfeed.Status }
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		w.t.Fatal(err)
	}
	return status.Component.Sources
}

// source returns the status of the only source.
func (w *world) source() eventfeed.Status {
	w.t.Helper()
	all := w.sources()
	if len(all) != 1 {
		w.t.Fatalf("sources: %+v", all)
	}
	return all[0]
}

// metric returns the sample of /metrics that is written name{labels}.
func (w *world) metric(t *testing.T, name string) string {
	t.Helper()
	_, body := w.get("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Errorf("no metric %s", name)
	return ""
}
