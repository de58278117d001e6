package store

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"time"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/internal/jid"
)

// nodeSize and secretSize are in bytes, of random.
const nodeSize, secretSize = 16, 24

// newNode returns what nobody can guess, in lower case so that no server changes it.
func newNode() string {
	var node [nodeSize]byte
	_, _ = rand.Read(node[:]) // never fails
	return hex.EncodeToString(node[:])
}

// record is a device as stores keep it. Times are in milliseconds.
type record struct {
	Owner      string `json:"o,omitempty"`
	App        string `json:"a"`
	Kind       string `json:"k"`
	Address    string `json:"t"`
	Topic      string `json:"p,omitempty"`
	Sandbox    bool   `json:"s,omitempty"`
	P256DH     string `json:"d,omitempty"`
	Auth       string `json:"u,omitempty"`
	Digest     []byte `json:"h"` // SHA-256 of the secret
	Created    int64  `json:"c"`
	Registered int64  `json:"r"`
	Used       int64  `json:"l,omitempty"`
}

// newRecord returns the record of a device that registers now, and its secret.
func newRecord(d *Device, now time.Time) (r record, secret string) {
	var random [secretSize]byte
	_, _ = rand.Read(random[:]) // never fails
	secret = base64.RawURLEncoding.EncodeToString(random[:])
	digest := sha256.Sum256([]byte(secret))
	return record{
		Owner: string(d.Owner), App: d.App, Kind: string(d.Target.Kind), Address: d.Target.Address.Reveal(), Topic: d.Target.Topic,
		Sandbox: d.Target.Sandbox, P256DH: d.Target.P256DH, Auth: d.Target.Auth.Reveal(), Digest: digest[:],
		Created: now.UnixMilli(), Registered: now.UnixMilli(),
	}, secret
}

// renews takes over what the earlier record of the same device knows.
func (r *record) renews(before *record) { r.Created, r.Used = before.Created, before.Used }

func (r *record) device(node string) Device {
	return Device{
		Node: node, Owner: jid.JID(r.Owner), App: r.App,
		Target: notify.Target{
			Kind: notify.Kind(r.Kind), Address: config.Secret(r.Address), Topic: r.Topic, Sandbox: r.Sandbox,
			P256DH: r.P256DH, Auth: config.Secret(r.Auth),
		},
		Created: instant(r.Created), Registered: instant(r.Registered), Used: instant(r.Used),
	}
}

func instant(millis int64) time.Time {
	if millis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis).UTC()
}

// verify returns the device if the secret is its own, else ErrSecret.
func (r *record) verify(node, secret string) (Device, error) {
	digest := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(digest[:], r.Digest) != 1 {
		return Device{}, ErrSecret
	}
	return r.device(node), nil
}

// registeredUntil reports whether Forget removes the device.
func (r *record) registeredUntil(until time.Time) bool {
	return until.IsZero() || r.Registered <= until.UnixMilli()
}

// targetKey identifies what is registered by whom.
func (r *record) targetKey() []byte {
	h := sha256.New()
	for _, part := range [...]string{r.Owner, r.App, r.Kind, r.Address} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return h.Sum(nil)
}
