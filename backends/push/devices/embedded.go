package devices

import (
	"encoding/json"
	"fmt"

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
func OpenEmbedded(path string, limit int) (*Lists, error) {
	f, err := store.OpenFile(path, convert)
	if err != nil {
		return nil, fmt.Errorf("push devices: %w", err)
	}
	return embedded(f, limit), nil
}

// InspectEmbedded opens the store in that file for reading, while no other process has it
// open for writing; Put and the others that change something fail. The error of a file that
// is not there is fs.ErrNotExist.
func InspectEmbedded(path string) (*Lists, error) {
	f, err := store.InspectFile(path)
	if err != nil {
		return nil, fmt.Errorf("push devices: %w", err)
	}
	return embedded(f, 0), nil
}

func embedded(f *store.File, limit int) *Lists {
	s := Open(f, limit)
	s.moved = func(node string) string { return string(f.Look(movedBucket, node)) }
	return s
}

// convert moves the devices of an earlier version, which had a key for each.
func convert(tx *bolt.Tx, put func(string, []byte) error) error {
	moved, err := tx.CreateBucketIfNotExists(movedBucket)
	old := tx.Bucket([]byte("devices"))
	if err != nil || old == nil {
		return err
	}
	lists := make(map[string][]kept)
	err = old.ForEach(func(node, value []byte) error {
		k := kept{Node: string(node)}
		if json.Unmarshal(value, &k.record) != nil {
			return nil // its app registers again
		}
		key := k.valueKey()
		lists[key] = append(lists[key], k)
		return moved.Put(node, []byte(key))
	})
	if err != nil {
		return err
	}
	for key, list := range lists {
		value, err := json.Marshal(list)
		if err == nil {
			err = put(key, value)
		}
		if err != nil {
			return err
		}
	}
	for _, name := range [...]string{"devices", "owners", "targets"} {
		if err := tx.DeleteBucket([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}
