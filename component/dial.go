package component

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// keepAlive finds a peer that vanished without a word within about a minute even
// where the operating system's default is two hours.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3}

// dialTCP opens the connection; tests replace it.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", address)
}

// open connects to the server and, where configured, sets up TLS.
// Its errors are *LinkError, or the context's where that ended.
func (l *Link) open(ctx context.Context) (net.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	conn, err := l.dial(limited, l.cfg.Address)
	if err != nil {
		return nil, explainDial(l.cfg.Address, l.cfg.HandshakeTimeout, err)
	}
	if l.tls == nil {
		return conn, nil
	}
	secure := tls.Client(conn, l.tls)
	if err := secure.HandshakeContext(limited); err != nil {
		conn.Close()
		return nil, explainTLS(l.cfg.Address, l.serverName, err)
	}
	return secure, nil
}

// hostOf returns the host of host:port.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
