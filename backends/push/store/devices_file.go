package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"

	bolt "go.etcd.io/bbolt"
)

// DevicesFile is what the devices' file is called in its directory.
const DevicesFile = "devices.db"

// movedBucket has the keys of the values that devices of an earlier version have moved to,
// by their nodes, which users' servers know.
var movedBucket = []byte("moved")

// OpenDevices opens the store in that file, or begins one. limit is how many devices
// an owner can have; below one means MaxPerOwner.
func OpenDevices(path string, limit int, log *slog.Logger) (*DeviceLists, error) {
	f, err := openFile(path, convertDevices, byTarget, log)
	if err != nil {
		return nil, fmt.Errorf("push devices: %w", err)
	}
	return inFile(f, limit, log), nil
}

// InspectDevices opens the store in that file for reading, while no other process has it
// open for writing; Put and the others that change something fail. The error of a file that
// is not there is fs.ErrNotExist.
func InspectDevices(path string) (*DeviceLists, error) {
	f, err := inspectFile(path)
	if err != nil {
		return nil, fmt.Errorf("push devices: %w", err)
	}
	return inFile(f, 0, slog.New(slog.DiscardHandler)), nil
}

func inFile(f *File, limit int, log *slog.Logger) *DeviceLists {
	s := DevicesIn(f, limit, log)
	s.moved = func(node string) string { return string(f.Look(movedBucket, node)) }
	return s
}

// byTarget compares what devices are registered for.
func byTarget(a, b kept) int { return bytes.Compare(a.targetKey(), b.targetKey()) }

// convertDevices takes out the devices of an earlier version, which had a key for each.
func convertDevices(tx *bolt.Tx) (lists map[string][]kept, leftOut int, err error) {
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
