package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"eventpusher/internal/loopback"
)

// endpoint is one path. Only the path itself matches: there are no directories and
// redirects.
type endpoint struct {
	open    bool   // answers without a token
	secured bool   // answers nothing if no token is set
	stream  bool   // has a place among the live pages
	methods string // as in Allow; empty: all
	serve   http.HandlerFunc
}

// allows reports whether the endpoint takes a method.
func (e *endpoint) allows(method string) bool {
	return e.methods == "" || slices.Contains(strings.Split(e.methods, ", "), method)
}

const reading = "GET, HEAD"

// guard lets through what may be answered, in this order: is the request meant for
// this server, does a foreign page send it, who sends it, and only then what
// for, so that strangers cannot even learn which paths exist.
func (s *Server) guard(endpoints map[string]endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		if s.loopback && !isLoopbackHost(r.Host) {
			// A name that somebody else's DNS points at 127.0.0.1 (DNS rebinding).
			http.Error(w, "ask for this server as localhost, 127.0.0.1 or [::1]", http.StatusMisdirectedRequest)
			return
		}
		if !sameOrigin(r) {
			http.Error(w, "requests from other web pages are refused", http.StatusForbidden)
			return
		}
		e, known := endpoints[r.URL.Path]
		if !e.open && !s.authorized(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="eventpusher"`)
			http.Error(w, "send the token of [admin] as Authorization: Bearer TOKEN", http.StatusUnauthorized)
			return
		}
		switch {
		case !known:
			http.Error(w, "there is nothing here", http.StatusNotFound)
		case e.secured && s.cfg.Token == "":
			http.Error(w, "set token or token_file in [admin] to use this", http.StatusForbidden)
		case !e.allows(r.Method):
			w.Header().Set("Allow", e.methods)
			http.Error(w, "only "+strings.ReplaceAll(e.methods, ", ", " and "), http.StatusMethodNotAllowed)
		default:
			e.serve(w, r)
		}
	})
}

// secure sets what every answer carries, errors included.
func secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// isLoopbackHost reports whether a Host header names this machine in a way that
// no foreign DNS can answer for, with any port.
func isLoopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return loopback.Host(host)
}

// sameOrigin reports whether the request comes from no web page or from ours
// (RFC 6454 section 7).
func sameOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 {
		return false
	}
	u, err := url.Parse(origins[0])
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && strings.EqualFold(u.Host, r.Host)
}

// authorized reports whether the request carries the token, or none is needed.
func (s *Server) authorized(r *http.Request) bool {
	if s.cfg.Token == "" {
		return true
	}
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	// Digests make the comparison take the same time for tokens of any length.
	got, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(s.cfg.Token.Reveal()))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
