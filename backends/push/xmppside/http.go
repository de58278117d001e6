package xmppside

import (
	"encoding/json"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"time"

	xmppjid "mellium.im/xmpp/jid"

	"eventpusher/backends/push"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// Path is where the HTTP API belongs.
const Path = "/api/push/devices"

// maxBody bounds a request; a subscription has some 500 bytes.
const maxBody = 16 << 10

// registrationBody is what POST takes.
type registrationBody struct {
	User     string `json:"user"`
	Kind     string `json:"kind"`
	App      string `json:"app"`
	Token    string `json:"token"`
	Topic    string `json:"topic"`
	Endpoint string `json:"endpoint"`
	P256DH   string `json:"p256dh"`
	Auth     string `json:"auth"`
}

// ServeHTTP implements http.Handler. Whoever calls has made sure that the request is
// the operator's own: it may name any user.
//
//	POST    {user?, kind, app?, token | endpoint, p256dh, auth; topic?}   201 {jid, node, secret}
//	GET     ?user=JID                                                   200 {devices: [...]}
//	DELETE  ?node=NODE                                                  204, 404
//	DELETE  ?user=JID                                                   200 {removed: n}
func (d *Devices) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		d.post(w, r)
	case http.MethodGet:
		d.get(w, r)
	case http.MethodDelete:
		d.delete(w, r)
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		refuse(w, http.StatusMethodNotAllowed, "", "only GET, POST and DELETE")
	}
}

func (d *Devices) post(w http.ResponseWriter, r *http.Request) {
	// No web page can send this type elsewhere without asking first.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "", "send Content-Type: application/json")
		return
	}
	var q registrationBody
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	if err := body.Decode(&q); err != nil {
		refuse(w, http.StatusBadRequest, "", "the body is no JSON object with the fields user, kind, app, token, topic, endpoint, p256dh, auth")
		return
	}
	owner, err := parseUser(q.User)
	if err != nil {
		d.failWith(w, err)
		return
	}
	c, err := d.registry.Register(r.Context(), devices.Request{
		Owner: owner, Kind: q.Kind, App: q.App, Token: q.Token, Topic: q.Topic, Endpoint: q.Endpoint, P256DH: q.P256DH, Auth: q.Auth,
	})
	if err != nil {
		d.failWith(w, err)
		return
	}
	reply(w, http.StatusCreated, map[string]string{"jid": string(d.o.Own), "node": c.Node, "secret": c.Secret})
}

func (d *Devices) get(w http.ResponseWriter, r *http.Request) {
	owner, err := parseUser(r.URL.Query().Get("user"))
	if err == nil && owner == "" {
		err = &devices.InvalidError{Field: "user", Text: "is missing"}
	}
	var all []store.Device
	if err == nil {
		all, err = d.registry.List(r.Context(), owner)
	}
	if err != nil {
		d.failWith(w, err)
		return
	}
	reply(w, http.StatusOK, map[string]any{"devices": push.OwnDevices(all)})
}

func (d *Devices) delete(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	owner, err := parseUser(query.Get("user"))
	node := query.Get("node")
	if err == nil && (owner == "") == (node == "") {
		err = &devices.InvalidError{Field: "node", Text: "or user must be given, and not both"}
	}
	switch {
	case err != nil:
	case node != "":
		if err = d.registry.Remove(r.Context(), node, func(*store.Device) bool { return true }); err == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
	default:
		var n int
		if n, err = d.registry.Forget(r.Context(), owner, time.Time{}); err == nil {
			reply(w, http.StatusOK, map[string]int{"removed": n})
			return
		}
	}
	d.failWith(w, err)
}

// parseUser reads the address of an account, which may be missing.
func parseUser(user string) (jid.JID, error) {
	if user == "" {
		return "", nil
	}
	parsed, err := xmppjid.Parse(user)
	if err != nil || parsed.Localpart() == "" || parsed.Resourcepart() != "" {
		return "", &devices.InvalidError{Field: "user", Text: "is not the address of an account, such as alice@example.org"}
	}
	return jid.Prepare(user), nil
}

// failWith answers with what an error means.
func (d *Devices) failWith(w http.ResponseWriter, err error) {
	var invalid *devices.InvalidError
	switch {
	case errors.As(err, &invalid):
		refuse(w, http.StatusBadRequest, invalid.Field, invalid.Error())
	case errors.Is(err, store.ErrTooMany):
		refuse(w, http.StatusConflict, "user", err.Error())
	case errors.Is(err, store.ErrUnknown):
		refuse(w, http.StatusNotFound, "node", err.Error())
	default:
		d.complaints.Add(slog.LevelWarn, "push: a request about devices failed", err)
		refuse(w, http.StatusServiceUnavailable, "", "try again in a while; the log says more")
	}
}

func refuse(w http.ResponseWriter, status int, field, text string) {
	body := map[string]string{"error": text}
	if field != "" {
		body["field"] = field
	}
	reply(w, status, body)
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the peer has gone: nobody to tell
}
