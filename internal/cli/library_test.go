package cli

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestLibrariesLog: a receiver answers and goes on to write what it was sent. net/http
// quotes that, and goes past our log by itself.
func TestLibrariesLog(t *testing.T) {
	var logged buffer
	defer logLibraries(slog.New(slog.NewJSONHandler(&logged, nil)))()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	const secret = "author=alice&message=secret"
	answered := make(chan struct{})
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		conn.Write([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
		<-answered
		conn.Write([]byte(secret))
		in.Peek(1) // the client closes once it has logged
	}()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport}
	resp, err := client.Get("http://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	close(answered) // the connection is idle now
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(logged.String(), "Unsolicited"); {
		if time.Now().After(deadline) {
			t.Fatalf("nothing was provoked: %s", &logged)
		}
		time.Sleep(time.Millisecond)
	}
	got := logged.String()
	if !strings.Contains(got, `"level":"WARN"`) || strings.Contains(got, "alice") || strings.Count(got, "\n") != 1 {
		t.Errorf("%s", got)
	}
}
