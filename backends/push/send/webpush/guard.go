package webpush

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	"eventpusher/backends/push/internal/provider"
)

// ErrEndpoint says that an endpoint is not one that requests are sent to. What else
// the error says is for the operator: it would tell users about the network.
var ErrEndpoint = errors.New("endpoint is not allowed")

// maxEndpoint bounds what users register; the endpoints of browsers are shorter.
const maxEndpoint = 2048

// Guard decides where requests may go. Users name the endpoints, so without it they
// could reach what only this machine can: only https to addresses of the public
// Internet (by IANA's registries of special-purpose addresses) is allowed, unless the
// operator says otherwise. It is safe for concurrent use.
type Guard struct {
	hosts    map[string]bool
	guardian *ssrf.Guardian
	lookup   func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// NewGuard returns a guard that allows besides the public Internet the hosts, names or
// addresses without port, wherever they resolve to and with http too, and addresses in
// the networks.
func NewGuard(hosts []string, networks []netip.Prefix) (*Guard, error) {
	g := &Guard{hosts: make(map[string]bool), lookup: net.DefaultResolver.LookupNetIP}
	for _, host := range hosts {
		if host == "" || strings.ContainsAny(host, "/@*?") {
			return nil, provider.WrongOption("allow", fmt.Errorf("webpush: %q is not a host that can be allowed; give a name or an address, without scheme and port", host))
		}
		g.hosts[foldHost(strings.Trim(host, "[]"))] = true
	}
	options := []ssrf.Option{ssrf.WithAnyPort()}
	for _, network := range networks {
		switch {
		case !network.IsValid():
			return nil, provider.WrongOption("allow", errors.New("webpush: a network that is allowed must be like 10.1.0.0/16"))
		case network.Addr().Is4In6():
			return nil, provider.WrongOption("allow", fmt.Errorf("webpush: write the network %v as one of IPv4", network))
		case network.Addr().Is4():
			options = append(options, ssrf.WithAllowedV4Prefixes(network.Masked()))
		default:
			options = append(options, ssrf.WithAllowedV6Prefixes(network.Masked()))
		}
	}
	g.guardian = ssrf.New(options...)
	return g, nil
}

// foldHost makes the ways of writing a host equal.
func foldHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// Check says whether endpoint may be registered: its form, and that every address its
// host has now is allowed. ErrEndpoint says no; another error says that the host was
// not found for now. What a host resolves to later is checked at each connection.
func (g *Guard) Check(ctx context.Context, endpoint string) error {
	u, err := g.parse(endpoint)
	if err != nil {
		return err
	}
	host := u.Hostname()
	if g.hosts[foldHost(host)] {
		return nil
	}
	addresses, err := g.lookup(ctx, "ip", host)
	if err != nil {
		return fmt.Errorf("look up the endpoint's host: %w", err)
	}
	for _, address := range addresses {
		if err := g.guardian.SafeAddr(address.Unmap()); err != nil {
			return fmt.Errorf("%w: %w", ErrEndpoint, err)
		}
	}
	return nil
}

// parse reads an endpoint and checks all of it but the addresses.
func (g *Guard) parse(endpoint string) (*url.URL, error) {
	if len(endpoint) > maxEndpoint {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrEndpoint, maxEndpoint)
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return nil, fmt.Errorf("%w: not a URL with a host and without a user", ErrEndpoint)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("%w: not a port", ErrEndpoint)
		}
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !g.hosts[foldHost(u.Hostname())]) {
		return nil, fmt.Errorf("%w: not https", ErrEndpoint)
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// DialContext connects as net.Dialer does, to allowed addresses only. The check is of
// the very address of each connection, since a name may resolve to another one by now.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{KeepAlive: 30 * time.Second}
	if !g.hosts[foldHost(host)] {
		d.Control = g.control
	}
	return d.DialContext(ctx, network, address)
}

func (g *Guard) control(network, address string, conn syscall.RawConn) error {
	if err := g.guardian.Safe(network, address, conn); err != nil {
		return fmt.Errorf("%w: %w", ErrEndpoint, err)
	}
	return nil
}

// originOf returns the origin of an endpoint (RFC 6454 section 6.2).
func originOf(u *url.URL) string {
	host, port := foldHost(u.Hostname()), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == "" || u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		return u.Scheme + "://" + host
	}
	return u.Scheme + "://" + host + ":" + port
}
