package devices

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/internal/jid"
)

// FileName is what the file of Embedded is called in its directory.
const FileName = "devices.db"

// lockTimeout is how long to wait for another process to let go of the file.
const lockTimeout = 2 * time.Second

// The buckets: devices by node, nodes by owner, nodes by what is registered.
var (
	devicesBucket = []byte("devices")
	ownersBucket  = []byte("owners")
	targetsBucket = []byte("targets")
)

// separator stands between the parts of a key; neither JIDs nor nodes have it.
const separator = "\x00"

// Embedded keeps devices in a file of its own. What a method has returned without an
// error is on disk. Contexts do not matter to it.
type Embedded struct {
	db    *bolt.DB
	limit int
}

var _ Store = (*Embedded)(nil)

// OpenEmbedded opens the store in that file, or begins one. limit is how many devices
// an owner can have; below one means MaxPerOwner.
func OpenEmbedded(path string, limit int) (*Embedded, error) {
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
	return &Embedded{db: db, limit: limit}, nil
}

func (r *record) ownerKey(node string) []byte { return []byte(r.Owner + separator + node) }

// Put implements Store.
func (s *Embedded) Put(_ context.Context, d Device, now time.Time) (c Credentials, err error) {
	fresh := newNode()
	r, secret := newRecord(&d, now)
	c.Secret = secret
	key := r.targetKey()
	err = s.db.Batch(func(tx *bolt.Tx) error {
		r := r // another turn begins with what was asked for
		c.Node = fresh
		all, targets := tx.Bucket(devicesBucket), tx.Bucket(targetsBucket)
		if known := targets.Get(key); known != nil {
			c.Node = string(known)
			var before record
			if err := decode(all.Get(known), &before); err != nil {
				return err
			}
			r.renews(&before)
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

// Verify implements Store.
func (s *Embedded) Verify(_ context.Context, node, secret string) (Device, error) {
	r, err := s.load(node)
	if err != nil {
		return Device{}, err
	}
	return r.verify(node, secret)
}

// Get implements Store.
func (s *Embedded) Get(_ context.Context, node string) (Device, error) {
	r, err := s.load(node)
	if err != nil {
		return Device{}, err
	}
	return r.device(node), nil
}

func (s *Embedded) load(node string) (r record, err error) {
	err = s.db.View(func(tx *bolt.Tx) error { return decode(tx.Bucket(devicesBucket).Get([]byte(node)), &r) })
	return r, err
}

// Remove implements Store.
func (s *Embedded) Remove(_ context.Context, node string, condition func(*Device) bool) error {
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

// Forget implements Store.
func (s *Embedded) Forget(_ context.Context, owner jid.JID, until time.Time) (n int, err error) {
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
			if !r.registeredUntil(until) {
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

// Touch implements Store.
func (s *Embedded) Touch(_ context.Context, nodes []string, now time.Time) error {
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

// List implements Store.
func (s *Embedded) List(_ context.Context, owner jid.JID) (list []Device, err error) {
	if owner == "" {
		return nil, nil
	}
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

// Count implements Store.
func (s *Embedded) Count(context.Context) (n int, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket(devicesBucket).Stats().KeyN
		return nil
	})
	return n, err
}

// Close implements Store.
func (s *Embedded) Close() error { return s.db.Close() }

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
