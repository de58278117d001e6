// Package loopback says which hosts are this machine itself.
package loopback

import (
	"net/netip"
	"strings"
)

// Host reports whether host, a name or an IP address without port and brackets, is
// this machine and no other: a loopback address (RFC 1122 section 3.2.1.3, RFC 4291
// section 2.5.3) or localhost, which no DNS may answer for (RFC 6761 section 6.3).
// Other names are not, whatever they resolve to at the moment.
func Host(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
