package pushtest

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
)

// WebPush stands in for a push service and for the user agents behind it.
type WebPush struct {
	Server
	vapidKey string // base64url; "" when senders need not identify themselves
	agents   map[string]*agent
	tokens   []string
	got      []WebPushRequest
}

// WebPushRequest is one that was taken.
type WebPushRequest struct {
	Path      string
	Header    http.Header // without Authorization
	Plaintext string      // what the user agent has decrypted
	Size      int         // of the body
}

// agent is a user agent with one subscription.
type agent struct {
	key  *ecdh.PrivateKey
	auth []byte
}

// StartWebPush runs a stand-in for as long as the test. Its subscriptions are bound to
// a VAPID public key unless that is empty.
func StartWebPush(t testing.TB, vapidKey string) *WebPush {
	w := &WebPush{vapidKey: vapidKey, agents: make(map[string]*agent)}
	w.start(t, w.serve)
	return w
}

// Subscribe makes a user agent subscribe; path is that of its endpoint.
func (w *WebPush) Subscribe(t testing.TB, path string) notify.Target {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{key: key, auth: make([]byte, 16)}
	if _, err := rand.Read(a.auth); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.agents[path] = a
	return notify.Target{
		Kind: notify.WebPush, Address: config.Secret(w.URL + path),
		P256DH: base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()),
		Auth:   config.Secret(base64.RawURLEncoding.EncodeToString(a.auth)),
	}
}

// Requests returns what was taken so far.
func (w *WebPush) Requests() []WebPushRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.got)
}

// Tokens returns how many different VAPID tokens were sent.
func (w *WebPush) Tokens() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.tokens)
}

var (
	webPushTopic   = regexp.MustCompile(`^[A-Za-z0-9_-]{0,32}$`)
	webPushUrgency = regexp.MustCompile(`^(very-low|low|normal|high)$`)
	webPushVAPID   = regexp.MustCompile(`^vapid t=([^,]+), k=([^,]+)$`)
)

func (w *WebPush) serve(rw http.ResponseWriter, r *http.Request) {
	if w.scripted(rw, r.URL.Path) {
		return
	}
	body, err := readAll(r)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	receiver := w.agents[r.URL.Path]
	ttl, ttlErr := strconv.Atoi(r.Header.Get("TTL"))
	switch {
	case receiver == nil:
		http.Error(rw, "no such subscription", http.StatusNotFound)
		return
	case r.Method != http.MethodPost:
		http.Error(rw, "POST only", http.StatusMethodNotAllowed)
		return
	case len(body) > 4096:
		http.Error(rw, "too large", http.StatusRequestEntityTooLarge)
		return
	case ttlErr != nil || ttl < 0, r.Header.Get("Content-Encoding") != "aes128gcm",
		!webPushTopic.MatchString(r.Header.Get("Topic")), !webPushUrgency.MatchString(r.Header.Get("Urgency")):
		http.Error(rw, "bad headers", http.StatusBadRequest)
		return
	}
	if reason := w.identifyLocked(r.Header.Get("Authorization")); reason != "" {
		writeJSON(rw, http.StatusForbidden, map[string]string{"reason": reason})
		return
	}
	plaintext, err := receiver.decrypt(body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	header := r.Header.Clone()
	header.Del("Authorization")
	w.got = append(w.got, WebPushRequest{r.URL.Path, header, string(plaintext), len(body)})
	rw.Header().Set("Location", w.URL+"/message")
	rw.WriteHeader(http.StatusCreated)
}

// identifyLocked judges an Authorization header by RFC 8292, in Apple's words.
func (w *WebPush) identifyLocked(authorization string) (reason string) {
	if w.vapidKey == "" && authorization == "" {
		return ""
	}
	match := webPushVAPID.FindStringSubmatch(authorization)
	if match == nil {
		return "MissingProviderToken"
	}
	token, key := match[1], match[2]
	if !slices.Contains(w.tokens, token) {
		w.tokens = append(w.tokens, token)
	}
	point, err := base64.RawURLEncoding.Strict().DecodeString(key)
	if err != nil || w.vapidKey != "" && key != w.vapidKey {
		return "VapidPkHashMismatch"
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return "BadJwtToken"
	}
	var header struct{ Alg, Typ string }
	var claims struct {
		Aud, Sub string
		Exp      int64
	}
	err = verifyToken(token, public, &header, &claims)
	left := time.Until(time.Unix(claims.Exp, 0))
	if err != nil || header.Alg != "ES256" || claims.Aud != w.URL || left <= 0 || left > 24*time.Hour ||
		!strings.HasPrefix(claims.Sub, "mailto:") && !strings.HasPrefix(claims.Sub, "https:") {
		return "BadJwtToken"
	}
	return ""
}
