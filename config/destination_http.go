package config

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"
)

// HTTPDestination is what a destination of type http has beside URL, Workers, Timeout and
// TLS. At most one of Username, BearerToken and OAuth2 is given.
type HTTPDestination struct {
	Headers     []Header
	Username    string // basic authentication (RFC 7617)
	Password    Secret
	BearerToken Secret // RFC 6750
	OAuth2      *OAuth2
	SigningKeys []SigningKey // Standard Webhooks; each signs every request
	Proxy       string       // "environment" (default), "none" or a URL
	RateLimit   int          // requests a second; 0: no limit

	// BatchSize is how many events one request has at most; 1, the default: each has its own. More
	// take the format json or cloudevents.
	BatchSize   int
	BatchLinger time.Duration // how long an event waits for others to share its request; default 50 ms
	BatchBytes  Size          // of the body of a request; an event that is larger has a request of its own; default 1 MiB
}

// Header is a [[destination.header]].
type Header struct {
	Name  string
	Value Secret
}

// OAuth2 is [destination.oauth2]: client credentials (RFC 6749 section 4.4).
type OAuth2 struct {
	TokenURL     string
	ClientID     string
	ClientSecret Secret
	Scopes       []string
}

// SigningKey is a [[destination.signing_key]]: whsec_ and a key for HMAC-SHA256 (v1), or
// whsk_ and a private key of ed25519 (v1a), each in base64.
type SigningKey struct{ Key Secret }

// The prefixes of signing keys.
const (
	SigningSecret  = "whsec_"
	SigningPrivate = "whsk_"
)

// The values of HTTPDestination.Proxy that are no URLs.
const (
	ProxyEnvironment = "environment"
	ProxyNone        = "none"
)

func (d *HTTPDestination) fields() []field {
	return join([]field{
		list("header", &d.Headers, func(h *Header) []field {
			return append([]field{text("name", &h.Name, nil, filled, isHeaderName)}, secret("value", &h.Value, nil, filled, isHeaderValue)...)
		}),
		text("username", &d.Username, nil, nonEmpty),
	},
		secret("password", &d.Password, nil, nonEmpty),
		secret("bearer_token", &d.BearerToken, nil, nonEmpty, isHeaderValue),
		[]field{
			section("oauth2", &d.OAuth2, func(o *OAuth2) []field {
				return join([]field{
					text("token_url", &o.TokenURL, nil, filled, isHTTPURL),
					text("client_id", &o.ClientID, nil, filled),
				},
					secret("client_secret", &o.ClientSecret, nil, filled),
					[]field{texts("scopes", &o.Scopes, []any{}, nonEmpty)})
			}),
			list("signing_key", &d.SigningKeys, func(k *SigningKey) []field { return secret("key", &k.Key, nil, filled, isSigningKey) }),
			text("proxy", &d.Proxy, ProxyEnvironment, isProxy),
			integer("rate_limit", &d.RateLimit, int64(0), 0, 1_000_000),
			integer("batch_size", &d.BatchSize, int64(1), 1, 1000),
			duration("batch_linger", &d.BatchLinger, "50ms", time.Millisecond),
			size("batch_bytes", &d.BatchBytes, "1MiB", 1<<10),
		})
}

// httpSettings are the keys of type http.
type httpSettings Destination

// Keys implements Settings.
func (d *httpSettings) Keys() []Key {
	return join(secret("url", &d.URL, nil, filled, isHTTPURL), []field{
		integer("workers", &d.Workers, int64(10), 1, 1000),
		duration("timeout", &d.Timeout, "2s", time.Millisecond),
	}, d.HTTP.fields(), []field{section("tls", &d.TLS, (*TLS).fields)})
}

// Check implements Settings.
func (d *httpSettings) Check(s *Section) { s.l.httpDestination((*Destination)(d), s.at) }

// own are headers that the requests have anyway, or that HTTP itself needs.
var ownHeaders = []string{
	"Authorization", "Connection", "Content-Length", "Content-Type", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"User-Agent", "Webhook-Id", "Webhook-Signature", "Webhook-Timestamp",
}

func isHeaderName(s string) *complaint {
	token := func(r rune) bool {
		return r < 0x80 && (isAlphanumeric(byte(r)) || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !token(r) }) {
		return &complaint{quote(s) + " is no name of a header", "write letters, digits and -, such as X-Api-Key"}
	}
	if name := http.CanonicalHeaderKey(s); slices.Contains(ownHeaders, name) {
		return &complaint{quote(s) + " is a header that eventpusher sets itself", "use bearer_token, username or oauth2 for Authorization; leave out the others"}
	}
	return nil
}

func isHeaderValue(s string) *complaint {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return &complaint{"has a line end or another control character, which no header can hold", "write one line"}
	}
	return nil
}

func isSigningKey(s string) *complaint {
	const remedy = `write "whsec_" and 24 to 64 random bytes in base64, or "whsk_" and a private key of ed25519 in base64`
	encoded, symmetric := strings.CutPrefix(s, SigningSecret)
	private := false
	if !symmetric {
		encoded, private = strings.CutPrefix(s, SigningPrivate)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case !symmetric && !private:
		return &complaint{"starts neither with " + SigningSecret + " nor with " + SigningPrivate, remedy}
	case err != nil:
		return &complaint{"is not in base64 behind its prefix", remedy}
	case symmetric && (len(key) < 24 || len(key) > 64), private && len(key) != 32 && len(key) != 64:
		return &complaint{"is a key of the wrong length", remedy}
	}
	return nil
}

func isProxy(s string) *complaint {
	if s == ProxyEnvironment || s == ProxyNone {
		return nil
	}
	if _, bad := parseURL(s, "http"); bad != nil {
		return &complaint{bad.text, `write "environment", "none", or the proxy's URL, such as "http://proxy.example.org:3128"`}
	}
	return nil
}

// httpDestination checks what concerns several keys of a destination of type http.
func (l *loader) httpDestination(d *Destination, at keyPath) {
	h := &d.HTTP
	l.require(at.with("url").String(), `write url = "https://example.org/hook", or url_file`, d.URL == "")
	l.require(at.with("password").String(), "set password or password_file", h.Username != "" && h.Password == "")
	l.require(at.with("username").String(), "name the user of the password", h.Username == "" && h.Password != "")
	if h.BatchSize > 1 && d.Format != FormatJSON && d.Format != FormatCloudEvents {
		l.errorf(at.with("batch_size").String(), "is more than 1, and format = "+quote(d.Format)+" cannot be written in batches", `write format = "json" or "cloudevents", or remove the key`)
	}
	seen := make(map[string]bool)
	for i, header := range h.Headers {
		here := at.with("header").with(position(i))
		l.require(here.with("name").String(), `write name = "X-Api-Key", say`, header.Name == "")
		l.require(here.with("value").String(), "set value or value_file", header.Value == "")
		if name := http.CanonicalHeaderKey(header.Name); name != "" && seen[name] {
			l.errorf(here.with("name").String(), quote(header.Name)+" stands there twice", "remove one of them")
		} else {
			seen[name] = true
		}
	}
	for i, k := range h.SigningKeys {
		l.require(at.with("signing_key").with(position(i)).with("key").String(), "set key or key_file", k.Key == "")
	}
	if o := h.OAuth2; o != nil {
		here := at.with("oauth2")
		l.require(here.with("token_url").String(), `write token_url = "https://login.example.org/token", say`, o.TokenURL == "")
		l.require(here.with("client_id").String(), "write the client's identifier", o.ClientID == "")
		l.require(here.with("client_secret").String(), "set client_secret or client_secret_file", o.ClientSecret == "")
	}
	var ways []string
	for name, given := range map[string]bool{"username": h.Username != "", "bearer_token": h.BearerToken != "", "oauth2": h.OAuth2 != nil} {
		if given {
			ways = append(ways, name)
		}
	}
	if slices.Sort(ways); len(ways) > 1 {
		l.errorf(at.String(), "authenticates in two ways: "+strings.Join(ways, " and "), "keep one of them")
	}
}
