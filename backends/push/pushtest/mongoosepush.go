package pushtest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"testing"
)

// MongoosePush stands in for a MongoosePush server, API versions 2 and 3.
type MongoosePush struct {
	Server
	got []MongoosePushRequest
}

// MongoosePushRequest is one that was taken.
type MongoosePushRequest struct {
	Path     string // as it was sent
	DeviceID string
	Body     string
	Epoch    string // of the header eventpusher-epoch
}

// StartMongoosePush runs a stand-in for as long as the test.
func StartMongoosePush(t testing.TB) *MongoosePush {
	m := &MongoosePush{}
	m.start(t, m.serve)
	return m
}

// Requests returns what was taken so far.
func (m *MongoosePush) Requests() []MongoosePushRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got)
}

var mongoosePushPath = regexp.MustCompile(`^/(?:[a-z]+/)?v[23]/notification/([^/]+)$`)

// serve takes what the API's schema has, and nothing else.
func (m *MongoosePush) serve(w http.ResponseWriter, r *http.Request) {
	match := mongoosePushPath.FindStringSubmatch(r.URL.EscapedPath())
	if match == nil || r.URL.RawQuery != "" {
		writeJSON(w, http.StatusNotFound, map[string]string{"reason": "no such path"})
		return
	}
	device, err := url.PathUnescape(match[1])
	if err != nil || m.scripted(w, device) {
		return
	}
	text, err := readAll(r)
	if err != nil {
		return
	}
	var request struct {
		Service        string `json:"service"`
		Mode           string `json:"mode"`
		Priority       string `json:"priority"`
		Topic          string `json:"topic"`
		MutableContent string `json:"mutable_content"`
		TimeToLive     string `json:"time_to_live"`
		Alert          *struct {
			Body        *string `json:"body"`
			Title       *string `json:"title"`
			Tag         string  `json:"tag"`
			Badge       int     `json:"badge"`
			ClickAction string  `json:"click_action"`
			Sound       string  `json:"sound"`
		} `json:"alert"`
		Data map[string]any `json:"data"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode(&request)
	alert := request.Alert
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" ||
		request.Service != "fcm" && request.Service != "apns" ||
		alert == nil && request.Data == nil || alert != nil && (alert.Body == nil || alert.Title == nil) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"reason": "invalid_request"})
		return
	}
	w.WriteHeader(http.StatusOK)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = append(m.got, MongoosePushRequest{r.URL.EscapedPath(), device, string(text), r.Header.Get("eventpusher-epoch")})
}
