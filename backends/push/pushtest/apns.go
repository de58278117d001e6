package pushtest

import (
	"crypto/ecdsa"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// APNs stands in for the Apple Push Notification service.
type APNs struct {
	Server
	account APNsAccount
	tokens  []string
	got     []APNsRequest
}

// APNsAccount is what the stand-in knows of its developer.
type APNsAccount struct {
	KeyID, TeamID string
	Key           *ecdsa.PublicKey
	Topics        []string
}

// APNsRequest is one that was taken.
type APNsRequest struct {
	Token   string
	Header  http.Header // without Authorization
	Payload string
}

// StartAPNs runs a stand-in for as long as the test.
func StartAPNs(t testing.TB, account APNsAccount) *APNs {
	a := &APNs{account: account}
	a.start(t, a.serve)
	return a
}

// Requests returns what was taken so far.
func (a *APNs) Requests() []APNsRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

// ProviderTokens returns the different provider tokens that were sent, in the order
// of their first use.
func (a *APNs) ProviderTokens() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.tokens)
}

var (
	apnsPath = regexp.MustCompile(`^/3/device/([0-9a-fA-F]+)$`)
	apnsUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

func (a *APNs) serve(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, reason string) {
		writeJSON(w, status, map[string]string{"reason": reason})
	}
	provided, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "bearer ")
	a.mu.Lock()
	if bearer && !slices.Contains(a.tokens, provided) {
		a.tokens = append(a.tokens, provided)
	}
	a.mu.Unlock()
	match := apnsPath.FindStringSubmatch(r.URL.EscapedPath())
	if match != nil && a.scripted(w, match[1]) {
		return
	}
	switch {
	case r.ProtoMajor != 2:
		http.Error(w, "HTTP/2 only", http.StatusHTTPVersionNotSupported)
		return
	case r.Method != http.MethodPost:
		refuse(http.StatusMethodNotAllowed, "MethodNotAllowed")
		return
	case match == nil:
		refuse(http.StatusNotFound, "BadPath")
		return
	case !bearer:
		refuse(http.StatusForbidden, "MissingProviderToken")
		return
	}
	if reason := a.checkToken(provided); reason != "" {
		refuse(http.StatusForbidden, reason)
		return
	}
	body, err := readAll(r)
	if err != nil {
		return
	}
	if status, reason := a.checkRequest(r.Header, body); reason != "" {
		refuse(status, reason)
		return
	}
	if strings.Trim(match[1], "0") == "" {
		refuse(http.StatusBadRequest, "BadDeviceToken")
		return
	}
	w.Header().Set("Apns-Id", r.Header.Get("Apns-Id"))
	w.WriteHeader(http.StatusOK)
	header := r.Header.Clone()
	header.Del("Authorization")
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got = append(a.got, APNsRequest{match[1], header, string(body)})
}

func (a *APNs) checkToken(token string) (reason string) {
	var header struct{ Alg, Kid string }
	var claims struct {
		Iss string
		Iat int64
	}
	err := verifyToken(token, a.account.Key, &header, &claims)
	age := time.Since(time.Unix(claims.Iat, 0))
	switch {
	case err != nil, header.Alg != "ES256", header.Kid != a.account.KeyID, claims.Iss != a.account.TeamID, age < -time.Minute:
		return "InvalidProviderToken"
	case age > time.Hour:
		return "ExpiredProviderToken"
	}
	return ""
}

func (a *APNs) checkRequest(h http.Header, body []byte) (status int, reason string) {
	pushType, priority, topic := h.Get("Apns-Push-Type"), h.Get("Apns-Priority"), h.Get("Apns-Topic")
	limit := 4096
	if pushType == "voip" {
		limit = 5120
	}
	var payload struct {
		APS *struct {
			Alert            *struct{ Title, Body string }
			Sound            string
			Badge            *int
			ContentAvailable int `json:"content-available"`
		} `json:"aps"`
	}
	if json.Unmarshal(body, &payload) != nil || payload.APS == nil {
		return http.StatusBadRequest, "PayloadEmpty"
	}
	background := pushType == "background"
	visible := payload.APS.Alert != nil || payload.APS.Sound != "" || payload.APS.Badge != nil
	expiration, err := strconv.ParseInt(h.Get("Apns-Expiration"), 10, 64)
	switch {
	case len(body) > limit:
		return http.StatusRequestEntityTooLarge, "PayloadTooLarge"
	case topic == "":
		return http.StatusBadRequest, "MissingTopic"
	case !slices.Contains(a.account.Topics, topic):
		return http.StatusBadRequest, "TopicDisallowed"
	case !slices.Contains([]string{"alert", "background", "voip"}, pushType),
		strings.HasSuffix(topic, ".voip") != (pushType == "voip"),
		background && (visible || payload.APS.ContentAvailable != 1),
		pushType == "alert" && !visible:
		return http.StatusBadRequest, "InvalidPushType"
	case priority != "5" && priority != "10" || background && priority != "5":
		return http.StatusBadRequest, "BadPriority"
	case err != nil || expiration < 0 || expiration > 0 && time.Until(time.Unix(expiration, 0)) > 31*24*time.Hour:
		return http.StatusBadRequest, "BadExpirationDate"
	case len(h.Get("Apns-Collapse-Id")) > 64:
		return http.StatusBadRequest, "BadCollapseId"
	case !apnsUUID.MatchString(h.Get("Apns-Id")):
		return http.StatusBadRequest, "BadMessageId"
	case h.Get("Content-Type") != "application/json":
		return http.StatusUnsupportedMediaType, "BadContentType"
	}
	return 0, ""
}
