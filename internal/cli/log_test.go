package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/config"
	"eventpusher/internal/logline"
)

// echoing is a broker that repeats what it is told at the login, in its refusal.
func echoing(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(time.Minute))
				fmt.Fprint(conn, `INFO {"server_id":"X","version":"2.12.0","proto":1,"headers":true,"max_payload":1048576,"auth_required":true}`+"\r\n")
				line, _ := bufio.NewReader(conn).ReadString('\n')
				fmt.Fprintf(conn, "-ERR 'refused: %s'\r\n", strings.ReplaceAll(strings.TrimSpace(line), "'", ""))
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return l.Addr().String()
}

const echoed = `
[component]
address = "127.0.0.1:1"
name = "events.example.org"
secret = "the-component's-secret"
[general]
hosts = ["example.org"]
[outbox]
path = %q
[[destination]]
name = "bus"
type = "nats"
url = "nats://%s"
username = "eventpusher"
password = "hunter2-password"
subject = "events.{{.sort}}"
`

// logged is what the program has logged so far.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestEchoedLogin: what a broker repeats of the login is neither logged nor printed.
func TestEchoedLogin(t *testing.T) {
	path := write(t, fmt.Sprintf(echoed, t.TempDir(), echoing(t)))
	for _, command := range []string{"doctor", "send"} {
		args := []string{command, "-config", path}
		if command == "send" {
			args = append(args, "-to", "bus")
		}
		_, stdout, stderr := invoke(args...)
		if strings.Contains(stdout+stderr, "hunter2") || !strings.Contains(stdout+stderr, "***") {
			t.Errorf("%s:\n%s%s", command, stdout, stderr)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var log logged
	ended := make(chan error, 1)
	go func() { ended <- runDaemon(ctx, Process{Stderr: &log, Version: "test"}, options{config: path}) }()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(log.String(), "***"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("the refusal is not logged:\n%s", log.String())
			break
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("logged:\n%s", log.String())
	}
}

// TestLogIsBounded: the program's log goes through the limiter, which cuts values.
func TestLogIsBounded(t *testing.T) {
	cfg, err := mustLoad(Process{}, write(t, fmt.Sprintf(echoed, t.TempDir(), "127.0.0.1:1")))
	if err != nil {
		t.Fatal(err)
	}
	var out logged
	var now changeable
	now.set(cfg, cfg)
	lines := now.log(&out, cfg.Log.Format)
	log := slog.New(lines)
	for i := range 1000 {
		log.Error("a name does not exist", "name", strings.Repeat("x", i*100))
	}
	if n := strings.Count(out.String(), "\n"); n != logline.MaxLines || lines.Held() != uint64(1000-n) || out.text.Len() > n*(logline.MaxValue+200) {
		t.Errorf("%d lines of %d bytes, %d were held back", n, out.text.Len(), lines.Held())
	}
}

// After a reload neither the new secrets nor those of calls that are still under way are shown.
func TestSecretsOfAReload(t *testing.T) {
	configured := func(secret string) *config.Config {
		c := config.Default()
		c.Component.Secret = config.Secret(secret)
		return &c
	}
	var out logged
	var now changeable
	now.set(configured("first-secret"), configured("first-secret"))
	log := slog.New(now.log(&out, "text"))
	now.set(configured("first-secret"), configured("second-secret"))
	log.Error("refused", "err", "login first-secret or second-secret is wrong")
	log.Debug("not logged")
	verbose := configured("second-secret")
	verbose.Log.Level = slog.LevelDebug
	now.set(configured("second-secret"), verbose)
	log.Debug("logged now")
	if text := out.String(); strings.Contains(text, "-secret") || strings.Count(text, "***") != 2 || strings.Contains(text, "not logged") || !strings.Contains(text, "logged now") {
		t.Errorf("%s", text)
	}
}
