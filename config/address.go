package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"eventpusher/internal/jid"
)

// hostPlaceholder stands for each served host in MongooseIM's options.
const hostPlaceholder = "@HOST@"

// isDomain checks an XMPP domain (RFC 7622 section 3.2) as far as a typo would show.
func isDomain(s string) *complaint {
	if strings.Contains(s, "@HOSTS@") {
		return &complaint{"contains @HOSTS@, which MongooseIM has dropped", "write " + hostPlaceholder + " where it is understood"}
	}
	bad := &complaint{quote(s) + " is not a domain", `write a domain such as "example.org"`}
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > 1023 {
		return bad
	}
	if ip, ok := strings.CutPrefix(name, "["); ok {
		if addr, err := netip.ParseAddr(strings.TrimSuffix(ip, "]")); err == nil && addr.Is6() && strings.HasSuffix(ip, "]") {
			return nil
		}
		return bad
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || strings.ContainsFunc(label, notInLabel) {
			return bad
		}
	}
	return nil
}

func notInLabel(r rune) bool {
	return r == unicode.ReplacementChar || unicode.IsSpace(r) || unicode.IsControl(r) ||
		strings.ContainsRune(`@/\:"'<>&,;()[]{}*`, r)
}

// isDomainPattern is a domain that may contain @HOST@.
func isDomainPattern(s string) *complaint {
	return isDomain(strings.ReplaceAll(s, hostPlaceholder, "host.example"))
}

// isHostPattern is a domain of which one label may be a wildcard, above two others at least.
func isHostPattern(s string) *complaint {
	if !jid.Wild(s) {
		return isDomain(s)
	}
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	at := slices.Index(labels, "*")
	if at > len(labels)-3 || isDomain(strings.Replace(s, "*", "any", 1)) != nil {
		return &complaint{quote(s) + " is not a domain with one wildcard", `write * in place of one label with two labels or more behind it, such as "*.example.org"`}
	}
	return nil
}

// isPubsubHost is MongooseIM's form of a virtual pubsub host: a domain, or a
// prefix before a final .@HOST@.
func isPubsubHost(s string) *complaint {
	prefix, hasHost := strings.CutSuffix(s, "."+hostPlaceholder)
	if bad := isDomain(prefix); bad != nil {
		if !hasHost && strings.Contains(s, hostPlaceholder) {
			return &complaint{hostPlaceholder + " stands only at the end, after a dot", `write "pubsub.` + hostPlaceholder + `"`}
		}
		return bad
	}
	return nil
}

// isHostname is a host to connect to: a name or an IP address, without a port.
func isHostname(s string) *complaint {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if isDomain(s) != nil {
		return &complaint{quote(s) + " is not a host name", "write a name or an IP address; the port has its own key"}
	}
	return nil
}

// isHTTPHost is the host of an http pool: scheme, name and perhaps port.
func isHTTPHost(s string) *complaint {
	u, bad := parseURL(s, "http", "https")
	switch {
	case bad != nil && bad.remedy != "":
		return bad
	case bad != nil:
		bad.remedy = `write "http://" or "https://", a host and perhaps a port, such as "http://localhost:8000"`
		return bad
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return &complaint{"has a path or a query", "write that into connection.path_prefix or the handler's path"}
	}
	return nil
}

// isHTTPURL is a whole URL, perhaps with a path and a query.
func isHTTPURL(s string) *complaint {
	_, bad := parseURL(s, "http", "https")
	if bad != nil && bad.remedy == "" {
		bad.remedy = `write a URL such as "https://example.org/hook"`
	}
	return bad
}

// isServiceHost is sns_host: a bare host, as MongooseIM uses it, or a URL, as its
// documentation says.
func isServiceHost(s string) *complaint {
	const remedy = `write a host such as "sns.eu-west-1.amazonaws.com", or a URL such as "http://localhost:4566"`
	if s == "" {
		return &complaint{"is empty", remedy}
	}
	if strings.Contains(s, "://") {
		_, bad := parseURL(s, "http", "https")
		if bad != nil && bad.remedy == "" {
			bad.remedy = remedy
		}
		return bad
	}
	host := s
	if name, port, err := net.SplitHostPort(s); err == nil {
		if !isPort(port) {
			return &complaint{"has an invalid port", remedy}
		}
		host = name
	}
	if isHostname(host) != nil {
		return &complaint{"is neither a host nor a URL", remedy}
	}
	return nil
}

// natsSchemes are those that the NATS client knows.
var natsSchemes = []string{"nats", "tls", "ws", "wss"}

func isNATSURL(s string) *complaint {
	// The client takes several servers in one text, separated by commas.
	for one := range strings.SplitSeq(s, ",") {
		if _, bad := parseURL(strings.TrimSpace(one), natsSchemes...); bad != nil {
			if bad.remedy == "" {
				bad.remedy = `write a URL such as "nats://localhost:4222"`
			}
			return bad
		}
	}
	return nil
}

// isStreamName is the prefix of streams, of buckets, which allow least, and of
// subjects.
func isStreamName(s string) *complaint {
	const longest = 64
	other := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}
	if s == "" || len(s) > longest || strings.ContainsFunc(s, other) {
		return &complaint{"is not the name of a stream", "write letters, digits, - and _, " + strconv.Itoa(longest) + " at most"}
	}
	return nil
}

// parseURL reads an absolute URL. One with a password is refused, since URLs are
// logged; no complaint shows the URL for the same reason.
func parseURL(s string, schemes ...string) (*url.URL, *complaint) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return nil, &complaint{"is not a URL with a host", ""}
	}
	known := false
	for _, scheme := range schemes {
		known = known || u.Scheme == scheme
	}
	switch {
	case !known:
		return nil, &complaint{"does not start with " + strings.Join(schemes, ":// or ") + "://", ""}
	case u.User != nil:
		return nil, &complaint{"contains a user name or password, which would show in logs", "remove what stands before the @"}
	case u.Port() != "" && !isPort(u.Port()):
		return nil, &complaint{"has an invalid port", ""}
	}
	return u, nil
}

// isListenAddress is host:port; an empty host means all interfaces.
func isListenAddress(s string) *complaint {
	_, port, err := net.SplitHostPort(s)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n > 65535 {
		return &complaint{quote(s) + " is not an address", `write host:port, such as "127.0.0.1:9090"`}
	}
	return nil
}

// isDialAddress is host:port with both given.
func isDialAddress(s string) *complaint {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isPort(port) || isHostname(host) != nil {
		return &complaint{quote(s) + " is not an address", `write host:port, such as "localhost:5347"`}
	}
	return nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
