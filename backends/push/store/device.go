package store

import (
	"context"
	"errors"
	"time"

	"eventpusher/backends/push/notify"
	"eventpusher/internal/jid"
)

// Device is one installation of an application.
type Device struct {
	// Node names the device to the users' servers. Nobody can guess it.
	Node string
	// Owner is the bare JID of the account that registered it, empty if the
	// application's own server did without saying for whom.
	Owner  jid.JID
	App    string // by its name in the configuration
	Target notify.Target
	// Created is when it was first registered, Registered when last, Used when it was
	// last told something, to the day; zero if never.
	Created, Registered, Used time.Time
}

// Credentials are what the device's owner tells his server.
type Credentials struct {
	Node string
	// Secret goes along with each notification, as publish-option "secret". It is
	// known to nobody else: only its digest is kept.
	Secret string
}

// The errors of Devices.
var (
	ErrUnknown = errors.New("there is no such device")
	ErrSecret  = errors.New("the secret is not the device's")
)

// Devices keeps devices. What a method has returned without an error is as safe as the
// store makes it. Errors other than those that are named are the store's own troubles,
// which say nothing about a device. All methods are safe for concurrent use; where the
// store is behind a network they end within seconds, or with the context.
type Devices interface {
	// Put adds the device, or renews the one of its owner that has the same application
	// and address: that keeps its node and gets another secret. d.Node is ignored. The
	// error may be ErrTooMany. Devices without owner are not limited.
	Put(ctx context.Context, d Device, now time.Time) (Credentials, error)
	// Verify returns the device of that node if the secret is its own, else ErrUnknown
	// or ErrSecret.
	Verify(ctx context.Context, node, secret string) (Device, error)
	// Get returns the device of that node, ErrUnknown if there is none.
	Get(ctx context.Context, node string) (Device, error)
	// Remove removes the device of that node if it meets the condition, which may be
	// asked more than once; ErrUnknown if there is none such.
	Remove(ctx context.Context, node string, condition func(*Device) bool) error
	// Forget removes the devices of an owner that were registered, or registered again,
	// until then, and says how many there were; the zero time removes all. Devices
	// without owner stay.
	Forget(ctx context.Context, owner jid.JID, until time.Time) (int, error)
	// Touch notes that devices were told something. Those that are not there any more
	// are left out.
	Touch(ctx context.Context, nodes []string, now time.Time) error
	// List returns the devices of an owner, in the order of their nodes; none without
	// an owner.
	List(ctx context.Context, owner jid.JID) ([]Device, error)
	// Count says how many devices there are. It may read all of them.
	Count(ctx context.Context) (int, error)
	// Close ends the store.
	Close() error
}

// MaxPerOwner is how many devices an account can have unless the store is told
// otherwise.
const MaxPerOwner = 16
