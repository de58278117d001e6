package registration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"eventpusher/backends/push/notify"
	"eventpusher/internal/jid"
)

// FileName is what the embedded store's file is called in its directory.
const FileName = "push.db"

// lockTimeout is how long to wait for another process to let go of the file.
const lockTimeout = 2 * time.Second

var servicesBucket = []byte("services")

// separator stands between the parts of a key. No JID has it (RFC 7622), and a
// node that has it is refused, since XML has no way to write it.
const separator = "\x00"

// Embedded is the store in one file of its own. What Enable and the others have
// returned without an error has been synced to the disk.
type Embedded struct {
	db    *bolt.DB
	limit int
}

// OpenEmbedded opens the store in that file, or begins one. limit is how many
// services a user can have; below one means MaxPerUser.
func OpenEmbedded(path string, limit int) (*Embedded, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		return nil, cannotOpen(path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(servicesBucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("push registrations: %s: %w", path, err), db.Close())
	}
	if limit < 1 {
		limit = MaxPerUser
	}
	return &Embedded{db: db, limit: limit}, nil
}

func cannotOpen(path string, err error) error {
	if errors.Is(err, berrors.ErrTimeout) {
		return fmt.Errorf("push registrations: another process has %s open", path)
	}
	return fmt.Errorf("push registrations: %s: %w", path, err)
}

// InspectEmbedded opens the store in that file for reading, while no other process
// has it open for writing; Enable and the others that change something fail. The
// error of a file that is not there is fs.ErrNotExist.
func InspectEmbedded(path string) (*Embedded, error) {
	if _, err := os.Stat(path); err != nil { // bbolt would try to make one
		return nil, fmt.Errorf("push registrations: %w", err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, ReadOnly: true, NoStatistics: true})
	if err != nil {
		return nil, cannotOpen(path, err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(servicesBucket) == nil {
			return errors.New("it was made by something else")
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("push registrations: %s: %w", path, err), db.Close())
	}
	return &Embedded{db: db, limit: MaxPerUser}, nil
}

func ownerPrefix(owner jid.JID) []byte { return []byte(string(owner) + separator) }

func pubsubPrefix(owner, pubsub jid.JID) []byte {
	return append(ownerPrefix(owner), string(pubsub)+separator...)
}

func serviceKey(owner, pubsub jid.JID, node string) []byte {
	return append(pubsubPrefix(owner, pubsub), node...)
}

// value is what the file has under a service's key. At first it was the options alone,
// and such values are still read.
type value struct {
	Options  []notify.Field `json:"o,omitempty"`
	Created  int64          `json:"c,omitempty"` // Unix time in microseconds, 0 where nobody knows
	Sessions []string       `json:"s,omitempty"`
}

func encodeValue(s *Service) ([]byte, error) {
	return json.Marshal(value{s.Options, micros(s.Created), s.Sessions})
}

// decodeValue fills in what the file has of a service.
func decodeValue(b []byte, s *Service) error {
	var v value
	var err error
	if bytes.HasPrefix(b, []byte("{")) {
		err = json.Unmarshal(b, &v)
	} else {
		err = json.Unmarshal(b, &v.Options)
	}
	if err != nil {
		return fmt.Errorf("push registrations: a service cannot be read: %w", err)
	}
	s.Options, s.Created, s.Sessions = v.Options, created(v.Created), v.Sessions
	return nil
}

// Enable implements Store.
func (e *Embedded) Enable(_ context.Context, owner jid.JID, s Service) error {
	key, prefix, session := serviceKey(owner, s.PubSub, s.Node), ownerPrefix(owner), s.asking()
	// Several requests share one write to the disk.
	return e.db.Batch(func(tx *bolt.Tx) error {
		b := tx.Bucket(servicesBucket)
		sessions, others, changed := []string(nil), 0, make(map[string]*Service)
		c := b.Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			var one Service
			err := decodeValue(v, &one)
			if bytes.Equal(k, key) {
				sessions = one.Sessions // of one that cannot be read there are none; it is written anew
				continue
			}
			if err != nil {
				return err
			}
			others++
			if rest, was := left(one.Sessions, session); was {
				one.Sessions = rest
				changed[string(k)] = &one
			}
		}
		if others >= e.limit && b.Get(key) == nil {
			return ErrTooMany
		}
		service := s // the function may run twice
		service.Sessions = entered(sessions, session)
		changed[string(key)] = &service
		for k, v := range changed {
			content, err := encodeValue(v)
			if err == nil {
				err = b.Put([]byte(k), content)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Disable implements Store.
func (e *Embedded) Disable(_ context.Context, owner, pubsub jid.JID, node string) (there bool, err error) {
	key := serviceKey(owner, pubsub, node)
	err = e.db.Batch(func(tx *bolt.Tx) error {
		b := tx.Bucket(servicesBucket)
		there = b.Get(key) != nil
		return b.Delete(key)
	})
	return there, err
}

// Remove implements Store.
func (e *Embedded) Remove(_ context.Context, owner jid.JID, gone *Service) (removed bool, err error) {
	key := serviceKey(owner, gone.PubSub, gone.Node)
	err = e.db.Batch(func(tx *bolt.Tx) error {
		b := tx.Bucket(servicesBucket)
		removed = false
		v := b.Get(key)
		if v == nil {
			return nil
		}
		var now Service
		if err := decodeValue(v, &now); err != nil {
			return err
		}
		if removed = now.Created.Equal(gone.Created); !removed {
			return nil
		}
		return b.Delete(key)
	})
	return removed, err
}

// DisableAll implements Store.
func (e *Embedded) DisableAll(_ context.Context, owner, pubsub jid.JID) (int, error) {
	return e.remove(pubsubPrefix(owner, pubsub), time.Time{})
}

// Forget implements Store.
func (e *Embedded) Forget(_ context.Context, owner jid.JID, until time.Time) (int, error) {
	return e.remove(ownerPrefix(owner), until)
}

// remove deletes what has the prefix and was created until then, all for the zero time.
// What cannot be read goes as well.
func (e *Embedded) remove(prefix []byte, until time.Time) (n int, err error) {
	err = e.db.Batch(func(tx *bolt.Tx) error {
		n = 0
		b := tx.Bucket(servicesBucket)
		var keys [][]byte // bbolt's cursors do not survive a deletion
		for c, k := cursor(b, prefix); k != nil; k = following(c, prefix) {
			var s Service
			if decodeValue(b.Get(k), &s) != nil || createdUntil(s.Created, until) {
				keys = append(keys, bytes.Clone(k))
			}
		}
		for _, k := range keys {
			if err := b.Delete(k); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// Services implements Store.
func (e *Embedded) Services(_ context.Context, owner jid.JID) (list []Service, err error) {
	prefix := ownerPrefix(owner)
	err = e.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(servicesBucket).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			pubsub, node, _ := bytes.Cut(k[len(prefix):], []byte(separator))
			s := Service{PubSub: jid.JID(pubsub), Node: string(node)}
			if err := decodeValue(v, &s); err != nil {
				return err
			}
			list = append(list, s)
		}
		return nil
	})
	return list, err
}

// Count implements Store.
func (e *Embedded) Count(context.Context) (n int, err error) {
	err = e.db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket(servicesBucket).Stats().KeyN
		return nil
	})
	return n, err
}

// Close implements Store.
func (e *Embedded) Close() error { return e.db.Close() }

// cursor stands on the first key with the prefix; nil if there is none.
func cursor(b *bolt.Bucket, prefix []byte) (*bolt.Cursor, []byte) {
	c := b.Cursor()
	k, _ := c.Seek(prefix)
	return c, having(k, prefix)
}

func following(c *bolt.Cursor, prefix []byte) []byte {
	k, _ := c.Next()
	return having(k, prefix)
}

func having(k, prefix []byte) []byte {
	if !bytes.HasPrefix(k, prefix) {
		return nil
	}
	return k
}
