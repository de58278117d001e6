package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"eventpusher/internal/jid"
)

// DeviceLists implements Devices. All devices of an account are one list, so that every change
// is one write: there is nothing that a crash could leave half done, and the limit holds if
// several register at the same time. The first half of a node says which value has the device; a
// device without owner has a value of its own, which follows from its address.
type DeviceLists struct {
	lists *Lists[kept]
	limit int
	// moved returns the key of the value that a device of an earlier version has moved to,
	// empty if there is none; nil: there are no such devices.
	moved func(node string) string
}

var _ Devices = (*DeviceLists)(nil)

// kept is one device of a value.
type kept struct {
	Node string `json:"n"`
	record
}

// keySize is in bytes, of the digest that names a value.
const keySize = 16

// touchesAtOnce is how many values Touch writes at the same time.
const touchesAtOnce = 64

// DevicesIn returns a store in those values, which it closes at the end. limit is how many
// devices an owner can have; below one means MaxPerOwner. They also have to fit into one
// message of NATS.
func DevicesIn(v Values, limit int, log *slog.Logger) *DeviceLists {
	if limit < 1 {
		limit = MaxPerOwner
	}
	return &DeviceLists{lists: New[kept](v, func(key string) string { return key }, "push devices", log), limit: limit}
}

// ownerKey names the value of an account.
func ownerKey(owner jid.JID) string {
	digest := sha256.Sum256([]byte("owner\x00" + string(owner)))
	return hex.EncodeToString(digest[:keySize])
}

// valueKey names the value that the record belongs to.
func (r *record) valueKey() string {
	if r.Owner != "" {
		return ownerKey(jid.JID(r.Owner))
	}
	digest := sha256.Sum256(append([]byte("target\x00"), r.targetKey()...))
	return hex.EncodeToString(digest[:keySize])
}

// keyOf returns the name of the value that has a node; false if there cannot be such a
// node here.
func (s *DeviceLists) keyOf(node string) (key string, ok bool) {
	const digits = "0123456789abcdef"
	switch {
	case strings.Trim(node, digits) != "":
		return "", false
	case len(node) == 2*(keySize+nodeSize):
		return node[:2*keySize], true
	case len(node) == 2*nodeSize && s.moved != nil:
		key = s.moved(node)
	}
	return key, key != ""
}

// indexOf returns where a node is, below zero if it is not there.
func indexOf(list []kept, node string) int {
	return slices.IndexFunc(list, func(k kept) bool { return k.Node == node })
}

// Put implements Devices.
func (s *DeviceLists) Put(ctx context.Context, d Device, now time.Time) (c Credentials, err error) {
	r, secret := newRecord(&d, now)
	key, target := r.valueKey(), r.targetKey()
	fresh := key + newNode()
	c.Secret = secret
	err = s.lists.Change(ctx, key, func(list []kept) ([]kept, bool, error) {
		r := r // another turn begins with what was asked for
		if i := slices.IndexFunc(list, func(k kept) bool { return bytes.Equal(k.targetKey(), target) }); i >= 0 {
			c.Node = list[i].Node
			r.renews(&list[i].record)
			list[i].record = r
			return list, true, nil
		}
		if r.Owner != "" && len(list) >= s.limit {
			return nil, false, ErrTooMany
		}
		c.Node = fresh
		return append(list, kept{fresh, r}), true, nil
	})
	if err != nil {
		return Credentials{}, err
	}
	return c, nil
}

// load returns the record of a node.
func (s *DeviceLists) load(ctx context.Context, node string) (*record, error) {
	key, ok := s.keyOf(node)
	if !ok {
		return nil, ErrUnknown
	}
	list, err := s.lists.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	i := indexOf(list, node)
	if i < 0 {
		return nil, ErrUnknown
	}
	return &list[i].record, nil
}

// Verify implements Devices.
func (s *DeviceLists) Verify(ctx context.Context, node, secret string) (Device, error) {
	r, err := s.load(ctx, node)
	if err != nil {
		return Device{}, err
	}
	return r.verify(node, secret)
}

// Get implements Devices.
func (s *DeviceLists) Get(ctx context.Context, node string) (Device, error) {
	r, err := s.load(ctx, node)
	if err != nil {
		return Device{}, err
	}
	return r.device(node), nil
}

// Remove implements Devices.
func (s *DeviceLists) Remove(ctx context.Context, node string, condition func(*Device) bool) error {
	key, ok := s.keyOf(node)
	if !ok {
		return ErrUnknown
	}
	return s.lists.Change(ctx, key, func(list []kept) ([]kept, bool, error) {
		i := indexOf(list, node)
		if i < 0 {
			return nil, false, ErrUnknown
		}
		if d := list[i].device(node); !condition(&d) {
			return nil, false, ErrUnknown
		}
		return slices.Delete(list, i, i+1), true, nil
	})
}

// Forget implements Devices.
func (s *DeviceLists) Forget(ctx context.Context, owner jid.JID, until time.Time) (int, error) {
	if owner == "" {
		return 0, nil
	}
	return Remove(ctx, s.lists, ownerKey(owner), func(k kept) bool { return k.registeredUntil(until) })
}

// Touch implements Devices: it writes each value once, and stops at the first trouble.
func (s *DeviceLists) Touch(ctx context.Context, nodes []string, now time.Time) error {
	touched := make(map[string][]string) // by key
	for _, node := range nodes {
		if key, ok := s.keyOf(node); ok {
			touched[key] = append(touched[key], node)
		}
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(touchesAtOnce)
	for key, nodes := range touched {
		all.Go(func() error {
			return s.lists.Change(ctx, key, func(list []kept) (_ []kept, changed bool, _ error) {
				for i := range list {
					if slices.Contains(nodes, list[i].Node) {
						list[i].Used, changed = now.UnixMilli(), true
					}
				}
				return list, changed, nil
			})
		})
	}
	return all.Wait()
}

// List implements Devices.
func (s *DeviceLists) List(ctx context.Context, owner jid.JID) ([]Device, error) {
	if owner == "" {
		return nil, nil
	}
	all, err := s.lists.Get(ctx, ownerKey(owner))
	if err != nil {
		return nil, err
	}
	var list []Device
	for i := range all {
		list = append(list, all[i].device(all[i].Node))
	}
	slices.SortFunc(list, func(a, b Device) int { return cmp.Compare(a.Node, b.Node) })
	return list, nil
}

// Count implements Devices: it reads every account.
func (s *DeviceLists) Count(ctx context.Context) (int, error) { return s.lists.Count(ctx) }

// Close implements Devices.
func (s *DeviceLists) Close() error { return s.lists.Close() }
