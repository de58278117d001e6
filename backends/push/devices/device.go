// Package devices is the part of an app server (XEP-0357 section 3) that has nothing
// to do with XMPP: it checks what registers as a device, and brings a notification that was
// published for one to it through its provider.
package devices

import (
	"context"
	"errors"
	"fmt"
	"time"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// The errors of this package.
var (
	// ErrCoalesced says that a newer notification takes the place of this one, which
	// is done with so.
	ErrCoalesced = errors.New("a newer notification takes its place")
	// ErrNoCall says that the device gets nothing but calls, and this is none: an application
	// that shows no call for such a notification is ended by its system.
	ErrNoCall = errors.New("the device is notified of calls only")
	// ErrLimited is the cause of a backends.WaitError: the device was told much lately.
	ErrLimited = errors.New("the device was notified too often lately")
)

// InvalidError says what is wrong with a registration, in words that whoever sent it
// may see. Text goes on where Field begins: token, "is missing".
type InvalidError struct{ Field, Text string }

// Error implements error.
func (e *InvalidError) Error() string { return e.Field + " " + e.Text }

// Request asks for the registration of a device. The texts are as they came.
type Request struct {
	Owner jid.JID // bare, prepared; may be empty
	Kind  string  // apns, fcm or webpush
	App   string  // may be empty where only one application has the kind
	Token string  // apns, fcm
	Topic string  // apns; may be empty
	// Endpoint, P256DH and Auth are a Web Push subscription's.
	Endpoint, P256DH, Auth string
}

// Registry registers devices in its store. It is safe for concurrent use.
type Registry struct {
	store.Devices
	apps []App
	now  func() time.Time
}

// NewRegistry returns the registry of the applications' devices in a store.
func NewRegistry(s store.Devices, apps []App) *Registry {
	return &Registry{Devices: s, apps: apps, now: time.Now}
}

// Register checks and keeps a device, and returns when the store has it. Who registers
// the same token or endpoint again gets the same node with another secret.
//
// The error is an *InvalidError, store.ErrTooMany, or says why the store or the look-up of
// an endpoint's host has failed. For an endpoint it asks the DNS.
func (r *Registry) Register(ctx context.Context, q Request) (store.Credentials, error) {
	asked := r.now()
	app, target, err := r.check(ctx, &q)
	if err != nil {
		return store.Credentials{}, err
	}
	return r.Put(ctx, store.Device{Owner: q.Owner, App: app.Name, Target: target}, asked)
}

// Choices returns the names of the applications and the kinds that they have, for
// forms.
func (r *Registry) Choices() (apps, kinds []string) {
	seen := make(map[notify.Kind]bool)
	for i := range r.apps {
		apps = append(apps, r.apps[i].Name)
		for kind := range r.apps[i].senders {
			seen[kind] = true
		}
	}
	for _, kind := range kindOrder {
		if seen[kind] {
			kinds = append(kinds, string(kind))
		}
	}
	return apps, kinds
}

// kindOrder lists the kinds of devices that can be registered.
var kindOrder = [...]notify.Kind{notify.APNs, notify.FCM, notify.WebPush}

// invalid returns an InvalidError.
func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Text: fmt.Sprintf(format, args...)}
}
