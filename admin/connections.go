package admin

import (
	"container/list"
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// The bounds of all connections together. Each costs a descriptor and about 28 KiB.
const (
	maxConnections = 128
	// maxRequests is how many requests are served at once beside those of the probes. It is
	// with maxStreams below maxConnections, so that a connection can always be closed in favour
	// of a probe.
	maxRequests = 32
	// maxStreams is how many live pages are served at once.
	maxStreams = 8
)

// connections are the open connections of the listener, the oldest first. If one comes on
// top of maxConnections, the oldest that is not being served is closed: connections that
// only wait cannot keep a probe out. Its methods are safe for concurrent use.
type connections struct {
	closed prometheus.Counter
	log    *slog.Logger

	mu    sync.Mutex
	order *list.List // of *connection
	open  map[net.Conn]*list.Element
}

// places bound how many requests of a sort are served at once.
type places struct {
	most  int
	taken int    // under connections.mu
	full  string // what one more is answered
}

type connection struct {
	net.Conn
	served bool
}

func newConnections(log *slog.Logger) *connections {
	return &connections{
		log: log, order: list.New(), open: make(map[net.Conn]*list.Element),
		closed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eventpusher_admin_connections_closed_total",
			Help: "Connections of the admin listener that were closed in favour of newer ones, since too many were open.",
		}),
	}
}

// changed is for http.Server.ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.add(conn)
	case http.StateClosed, http.StateHijacked:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.removeLocked(conn)
	}
}

func (c *connections) add(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Front(); e != nil && len(c.open) >= maxConnections; e = e.Next() {
		oldest := e.Value.(*connection)
		if oldest.served {
			continue
		}
		oldest.Close()
		c.removeLocked(oldest.Conn)
		c.closed.Inc()
		c.log.Warn("admin: too many connections are open, the oldest is closed", "open", maxConnections,
			"remedy", "find out which program connects to [admin] listen and sends nothing")
		break
	}
	c.open[conn] = c.order.PushBack(&connection{Conn: conn})
}

func (c *connections) removeLocked(conn net.Conn) {
	if e := c.open[conn]; e != nil {
		c.order.Remove(e)
		delete(c.open, conn)
	}
}

// connKey is the key of the connection in the context of its requests.
type connKey struct{}

// remember is for http.Server.ConnContext.
func remember(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// serving returns a handler that keeps the connection of a request open while it is served,
// and answers 503 if there is no place.
func (c *connections) serving(in *places, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _ := r.Context().Value(connKey{}).(net.Conn)
		if !c.begin(in, conn) {
			http.Error(w, in.full, http.StatusServiceUnavailable)
			return
		}
		defer c.end(in, conn)
		serve(w, r)
	}
}

func (c *connections) begin(in *places, conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.taken >= in.most {
		return false
	}
	in.taken++
	if e := c.open[conn]; e != nil {
		e.Value.(*connection).served = true
	}
	return true
}

func (c *connections) end(in *places, conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in.taken--
	if e := c.open[conn]; e != nil {
		e.Value.(*connection).served = false
		c.order.MoveToBack(e) // it is the last that was of use
	}
}
