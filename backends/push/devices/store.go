package devices

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/internal/jid"
)

// FileName is what the store's file is called in its directory.
const FileName = "devices.db"

const (
	// lockTimeout is how long to wait for another process to let go of the file.
	lockTimeout = 2 * time.Second
	// nodeSize and secretSize are in bytes, of random.
	nodeSize, secretSize = 16, 24
)

// The buckets: devices by node, nodes by owner, nodes by what is registered.
var (
	devicesBucket = []byte("devices")
	ownersBucket  = []byte("owners")
	targetsBucket = []byte("targets")
)

// separator stands between the parts of a key; neither JIDs nor nodes have it.
const separator = "\x00"

// Store keeps devices in a file of its own. What a method has returned without an
// error is on disk. It is safe for concurrent use.
type Store struct {
	db    *bolt.DB
	limit int
}

// MaxPerOwner is how many devices an account can have unless the store is told
// otherwise.
const MaxPerOwner = 16

// OpenStore opens the store in that file, or begins one. limit is how many devices an
// owner can have; below one means MaxPerOwner. Devices without owner are not limited.
func OpenStore(path string, limit int) (*Store, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		return nil, fmt.Errorf("push devices: %s: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [...][]byte{devicesBucket, ownersBucket, targetsBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("push devices: %s: %w", path, err), db.Close())
	}
	if limit < 1 {
		limit = MaxPerOwner
	}
	return &Store{db: db, limit: limit}, nil
}

// record is a device as the file has it. Times are in milliseconds.
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

// targetKey identifies what is registered by whom.
func (r *record) targetKey() []byte {
	h := sha256.New()
	for _, part := range [...]string{r.Owner, r.App, r.Kind, r.Address} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return h.Sum(nil)
}

func (r *record) ownerKey(node string) []byte { return []byte(r.Owner + separator + node) }

// Put adds the device, or renews the one of its owner that has the same application
// and address: that keeps its node and gets another secret. d.Node is ignored. The
// error may be ErrTooMany.
func (s *Store) Put(d Device, now time.Time) (c Credentials, err error) {
	node, secret := make([]byte, nodeSize), make([]byte, secretSize)
	_, _ = rand.Read(node) // never fails
	_, _ = rand.Read(secret)
	fresh := hex.EncodeToString(node) // lower-case, so that no server changes it
	c.Secret = base64.RawURLEncoding.EncodeToString(secret)
	digest := sha256.Sum256([]byte(c.Secret))
	r := record{
		Owner: string(d.Owner), App: d.App, Kind: string(d.Target.Kind), Address: d.Target.Address.Reveal(), Topic: d.Target.Topic,
		Sandbox: d.Target.Sandbox, P256DH: d.Target.P256DH, Auth: d.Target.Auth.Reveal(), Digest: digest[:], Registered: now.UnixMilli(),
	}
	key := r.targetKey()
	err = s.db.Batch(func(tx *bolt.Tx) error {
		c.Node, r.Created, r.Used = fresh, now.UnixMilli(), 0
		all, targets := tx.Bucket(devicesBucket), tx.Bucket(targetsBucket)
		if known := targets.Get(key); known != nil {
			c.Node = string(known)
			var before record
			if err := decode(all.Get(known), &before); err != nil {
				return err
			}
			r.Created, r.Used = before.Created, before.Used
		} else if r.Owner != "" && len(owned(tx, d.Owner)) >= s.limit {
			return ErrTooMany
		}
		if err := save(all, c.Node, &r); err != nil {
			return err
		}
		if err := targets.Put(key, []byte(c.Node)); err != nil {
			return err
		}
		return tx.Bucket(ownersBucket).Put(r.ownerKey(c.Node), nil)
	})
	if err != nil {
		return Credentials{}, err
	}
	return c, nil
}

// Verify returns the device of that node if the secret is its own, else ErrUnknown or
// ErrSecret.
func (s *Store) Verify(node, secret string) (Device, error) {
	r, err := s.load(node)
	if err != nil {
		return Device{}, err
	}
	digest := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(digest[:], r.Digest) != 1 {
		return Device{}, ErrSecret
	}
	return r.device(node), nil
}

// Get returns the device of that node, ErrUnknown if there is none.
func (s *Store) Get(node string) (Device, error) {
	r, err := s.load(node)
	if err != nil {
		return Device{}, err
	}
	return r.device(node), nil
}

func (s *Store) load(node string) (r record, err error) {
	err = s.db.View(func(tx *bolt.Tx) error { return decode(tx.Bucket(devicesBucket).Get([]byte(node)), &r) })
	return r, err
}

// Remove removes the device of that node if it meets the condition; ErrUnknown if
// there is none such.
func (s *Store) Remove(condition func(*Device) bool, node string) error {
	return s.db.Batch(func(tx *bolt.Tx) error {
		var r record
		if err := decode(tx.Bucket(devicesBucket).Get([]byte(node)), &r); err != nil {
			return err
		}
		if d := r.device(node); !condition(&d) {
			return ErrUnknown
		}
		return remove(tx, node, &r)
	})
}

// Forget removes the devices of an owner that were registered, or registered again, until
// then, and says how many there were; the zero time removes all. Devices without owner
// stay.
func (s *Store) Forget(owner jid.JID, until time.Time) (n int, err error) {
	if owner == "" {
		return 0, nil
	}
	err = s.db.Batch(func(tx *bolt.Tx) error {
		n = 0
		for _, node := range owned(tx, owner) {
			var r record
			if err := decode(tx.Bucket(devicesBucket).Get([]byte(node)), &r); err != nil {
				return err
			}
			if !until.IsZero() && r.Registered > until.UnixMilli() {
				continue
			}
			if err := remove(tx, node, &r); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// Touch notes that devices were told something. Those that are not there any more are
// left out.
func (s *Store) Touch(nodes []string, now time.Time) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		all := tx.Bucket(devicesBucket)
		for _, node := range nodes {
			var r record
			err := decode(all.Get([]byte(node)), &r)
			if err == nil {
				r.Used = now.UnixMilli()
				err = save(all, node, &r)
			}
			if err != nil && !errors.Is(err, ErrUnknown) {
				return err
			}
		}
		return nil
	})
}

// List returns the devices of an owner, in the order of their nodes.
func (s *Store) List(owner jid.JID) (list []Device, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		for _, node := range owned(tx, owner) {
			var r record
			if err := decode(tx.Bucket(devicesBucket).Get([]byte(node)), &r); err != nil {
				return err
			}
			list = append(list, r.device(node))
		}
		return nil
	})
	return list, err
}

// Count says how many devices there are.
func (s *Store) Count() (n int, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket(devicesBucket).Stats().KeyN
		return nil
	})
	return n, err
}

// Close ends the store.
func (s *Store) Close() error { return s.db.Close() }

func decode(v []byte, r *record) error {
	if v == nil {
		return ErrUnknown
	}
	if err := json.Unmarshal(v, r); err != nil {
		return fmt.Errorf("push devices: a device cannot be read: %w", err)
	}
	return nil
}

func save(all *bolt.Bucket, node string, r *record) error {
	v, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return all.Put([]byte(node), v)
}

func remove(tx *bolt.Tx, node string, r *record) error {
	return errors.Join(
		tx.Bucket(devicesBucket).Delete([]byte(node)),
		tx.Bucket(targetsBucket).Delete(r.targetKey()),
		tx.Bucket(ownersBucket).Delete(r.ownerKey(node)),
	)
}

// owned lists the nodes of an owner.
func owned(tx *bolt.Tx, owner jid.JID) (nodes []string) {
	prefix := []byte(string(owner) + separator)
	c := tx.Bucket(ownersBucket).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		nodes = append(nodes, string(k[len(prefix):]))
	}
	return nodes
}
