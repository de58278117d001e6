package devices

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"

	bolt "go.etcd.io/bbolt"

	"eventpusher/backends/push/store"
)

// FileName is what the file of an embedded store is called in its directory.
const FileName = "devices.db"

// movedBucket has the keys of the values that devices of an earlier version have moved to,
// by their nodes, which users' servers know.
var movedBucket = []byte("moved")

// OpenEmbedded opens the store in that file, or begins one. limit is how many devices
// an owner can have; below one means MaxPerOwner.
func OpenEmbedded(path string, limit int, log *slog.Logger) (*Lists, error) {
	f, err := store.OpenFile(path, convert, byTarget, log)
	if err != nil {
		return nil, fmt.Errorf("push devices: %w", err)
	}
	return embedded(f, limit, log), nil
}

// InspectEmbedded opens the store in that file for reading, while no other process has it
// open for writing; Put and the others that change something fail. The error of a file that
// is not there is fs.ErrNotExist.
func InspectEmbedded(path string) (*Lists, error) {
	f, err := store.InspectFile(path)
	if err != nil {
		return nil, fmt.Errorf("push devices: %w", err)
	}
	return embedded(f, 0, slog.New(slog.DiscardHandler)), nil
}

func embedded(f *store.File, limit int, log *slog.Logger) *Lists {
	s := Open(f, limit, log)
	s.moved = func(node string) string { return string(f.Look(movedBucket, node)) }
	return s
}

// byTarget compares what devices are registered for.
func byTarget(a, b kept) int { return bytes.Compare(a.targetKey(), b.targetKey()) }

// convert takes out the devices of an earlier version, which had a key for each.
func convert(tx *bolt.Tx) (lists map[string][]kept, leftOut int, err error) {
	moved, err := tx.CreateBucketIfNotExists(movedBucket)
	old := tx.Bucket([]byte("devices"))
	if err != nil || old == nil {
		return nil, 0, err
	}
	lists = make(map[string][]kept)
	err = old.ForEach(func(node, value []byte) error {
		k := kept{Node: string(node)}
		if json.Unmarshal(value, &k.record) != nil {
			leftOut++
			return nil
		}
		key := k.valueKey()
		lists[key] = append(lists[key], k)
		return moved.Put(node, []byte(key))
	})
	if err != nil {
		return nil, 0, err
	}
	for _, name := range [...]string{"devices", "owners", "targets"} {
		if err := tx.DeleteBucket([]byte(name)); err != nil {
			return nil, 0, err
		}
	}
	return lists, leftOut, nil
}
