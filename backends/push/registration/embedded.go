package registration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"

	bolt "go.etcd.io/bbolt"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// FileName is what the embedded store's file is called in its directory.
const FileName = "push.db"

// OpenEmbedded opens the store in that file, or begins one. limit is how many
// services a user can have; below one means MaxPerUser.
func OpenEmbedded(path string, limit int, log *slog.Logger) (*Lists, error) {
	f, err := store.OpenFile(path, convert, order, log)
	if err != nil {
		return nil, fmt.Errorf("push registrations: %w", err)
	}
	return Open(f, limit, log), nil
}

// InspectEmbedded opens the store in that file for reading, while no other process
// has it open for writing; Enable and the others that change something fail. The
// error of a file that is not there is fs.ErrNotExist.
func InspectEmbedded(path string) (*Lists, error) {
	f, err := store.InspectFile(path)
	if err != nil {
		return nil, fmt.Errorf("push registrations: %w", err)
	}
	return Open(f, 0, slog.New(slog.DiscardHandler)), nil
}

// convert takes out the registrations of an earlier version, which had a key of owner,
// service and node for each.
func convert(tx *bolt.Tx) (lists map[string][]Service, leftOut int, err error) {
	name := []byte("services")
	b := tx.Bucket(name)
	if b == nil {
		return nil, 0, nil
	}
	lists = make(map[string][]Service)
	err = b.ForEach(func(k, v []byte) error {
		parts := bytes.SplitN(k, []byte{0}, 3)
		var old struct {
			Options  []notify.Field `json:"o"`
			Created  int64          `json:"c"`
			Sessions []string       `json:"s"`
		}
		var to any = &old
		if !bytes.HasPrefix(v, []byte("{")) {
			to = &old.Options // the oldest values are the options alone
		}
		if len(parts) != 3 || json.Unmarshal(v, to) != nil {
			leftOut++
			return nil
		}
		key := valueKey(string(parts[0]))
		lists[key] = append(lists[key], Service{PubSub: jid.JID(parts[1]), Node: string(parts[2]), Options: old.Options, Created: created(old.Created), Sessions: old.Sessions})
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return lists, leftOut, tx.DeleteBucket(name)
}
