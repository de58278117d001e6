package pushtest

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/config"
)

// FCM stands in for Firebase Cloud Messaging and for Google's token service.
type FCM struct {
	Server
	key     *rsa.PrivateKey
	granted []string // access tokens, the last one is good
	got     []FCMRequest
	life    time.Duration
}

// TokenPath is the address to script the token service by.
const TokenPath = "/token"

const (
	fcmProject = "chat-1234"
	fcmEmail   = "pusher@chat-1234.iam.gserviceaccount.com"
	fcmKeyID   = "c0ffee"
)

// FCMRequest is one that was taken.
type FCMRequest struct {
	Token   string
	Message string // as JSON, token included
}

// fcmKey is made once, since that takes long.
var fcmKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// StartFCM runs a stand-in for as long as the test. Access tokens live for life.
func StartFCM(t testing.TB, life time.Duration) *FCM {
	t.Helper()
	key, err := fcmKey()
	if err != nil {
		t.Fatal(err)
	}
	f := &FCM{key: key, life: life}
	f.start(t, f.serve)
	return f
}

// ServiceAccount returns the JSON file of an account that may send.
func (f *FCM) ServiceAccount(t testing.TB) config.Secret {
	t.Helper()
	return ServiceAccount(t, f.URL)
}

// ServiceAccount returns the JSON file of an account that gets its access tokens from
// the stand-in at that URL.
func ServiceAccount(t testing.TB, url string) config.Secret {
	t.Helper()
	key, err := fcmKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": fcmProject, "client_email": fcmEmail, "private_key_id": fcmKeyID,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"token_uri":   url + TokenPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	return config.Secret(file)
}

// Requests returns the messages that were taken so far.
func (f *FCM) Requests() []FCMRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

// Grants returns how many access tokens were given.
func (f *FCM) Grants() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.granted)
}

// Revoke makes the access token that was given last useless.
func (f *FCM) Revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.granted = append(f.granted, "revoked")
}

func (f *FCM) serve(w http.ResponseWriter, r *http.Request) {
	body, err := readAll(r)
	if err != nil {
		return
	}
	switch {
	case r.Method == http.MethodPost && r.URL.Path == TokenPath:
		f.grant(w, r, string(body))
	case r.Method == http.MethodPost && r.URL.Path == "/v1/projects/"+fcmProject+"/messages:send":
		f.send(w, r, body)
	default:
		refuse(w, http.StatusNotFound, "NOT_FOUND", "no such path")
	}
}

// refuse answers in the form of google.rpc.Status.
func refuse(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]any{"code": status, "status": code, "message": message}})
}

func (f *FCM) grant(w http.ResponseWriter, r *http.Request, body string) {
	if f.scripted(w, TokenPath) {
		return
	}
	var header struct{ Alg, Kid, Typ string }
	var claims struct {
		Iss, Scope, Aud string
		Iat, Exp        int64
	}
	form, err := url.ParseQuery(body)
	if err == nil {
		err = verifyToken(form.Get("assertion"), &f.key.PublicKey, &header, &claims)
	}
	issued, expires := time.Unix(claims.Iat, 0), time.Unix(claims.Exp, 0)
	switch {
	case err != nil, r.Header.Get("Content-Type") != "application/x-www-form-urlencoded",
		form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer",
		header.Alg != "RS256", header.Kid != fcmKeyID, claims.Iss != fcmEmail, claims.Aud != f.URL+TokenPath,
		claims.Scope != "https://www.googleapis.com/auth/firebase.messaging",
		time.Since(issued).Abs() > time.Minute, expires.Sub(issued) > time.Hour, !time.Now().Before(expires):
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": fmt.Sprint(err)})
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.granted = append(f.granted, "ya29."+rand.Text())
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": f.granted[len(f.granted)-1], "expires_in": int(f.life / time.Second), "token_type": "Bearer",
	})
}

var (
	fcmTTL      = regexp.MustCompile(`^[0-9]{1,7}s$`)
	fcmReserved = regexp.MustCompile(`^(from|message_type|google.*|gcm.*|)$`)
)

func (f *FCM) send(w http.ResponseWriter, r *http.Request, body []byte) {
	// What the API knows; anything else is an error there as here.
	var request struct {
		ValidateOnly bool `json:"validate_only"`
		Message      struct {
			Token        string            `json:"token"`
			Data         map[string]string `json:"data"`
			Notification *struct {
				Title, Body string
			} `json:"notification"`
			Android struct {
				CollapseKey  string `json:"collapse_key"`
				Priority     string `json:"priority"`
				TTL          string `json:"ttl"`
				Notification struct {
					Tag         string `json:"tag"`
					ChannelID   string `json:"channel_id"`
					ClickAction string `json:"click_action"`
					Sound       string `json:"sound"`
					Count       int    `json:"notification_count"`
					TitleLocKey string `json:"title_loc_key"`
					BodyLocKey  string `json:"body_loc_key"`
				} `json:"notification"`
			} `json:"android"`
			APNs struct {
				Headers map[string]string `json:"headers"`
				Payload map[string]any    `json:"payload"`
			} `json:"apns"`
		} `json:"message"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(&request)
	m := &request.Message
	if err == nil && f.scripted(w, m.Token) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	access, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !bearer || len(f.granted) == 0 || access != f.granted[len(f.granted)-1]:
		refuse(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
		return
	case err != nil, m.Token == "", !fcmTTL.MatchString(m.Android.TTL), r.Header.Get("Content-Type") != "application/json",
		m.Android.Priority != "HIGH" && m.Android.Priority != "NORMAL", len(body) > 4096+len(m.Token)+16:
		refuse(w, http.StatusBadRequest, "INVALID_ARGUMENT", fmt.Sprint("Request contains an invalid argument: ", err))
		return
	}
	for key := range m.Data {
		if fcmReserved.MatchString(key) {
			refuse(w, http.StatusBadRequest, "INVALID_ARGUMENT", "Invalid data payload key: "+key)
			return
		}
	}
	if request.ValidateOnly {
		// All real tokens have a colon.
		if !strings.Contains(m.Token, ":") {
			writeJSON(w, http.StatusBadRequest, map[string]any{"error": map[string]any{
				"code": http.StatusBadRequest, "status": "INVALID_ARGUMENT", "message": "The registration token is not a valid FCM registration token",
				"details": []any{map[string]string{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"}},
			}})
			return
		}
		writeJSON(w, http.StatusOK, map[string]string{"name": "projects/" + fcmProject + "/messages/fake_message_id"})
		return
	}
	var raw struct{ Message json.RawMessage }
	if json.Unmarshal(body, &raw) != nil {
		return
	}
	f.got = append(f.got, FCMRequest{m.Token, string(raw.Message)})
	writeJSON(w, http.StatusOK, map[string]string{"name": "projects/" + fcmProject + "/messages/0:1"})
}
