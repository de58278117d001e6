package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"

	bolt "go.etcd.io/bbolt"

	"eventpusher/backends/push/notify"
	"eventpusher/internal/jid"
)

// RegistrationsFile is what the registrations' file is called in its directory.
const RegistrationsFile = "push.db"

// OpenRegistrations opens the store in that file, or begins one. limit is how many
// services a user can have; below one means MaxPerUser.
func OpenRegistrations(path string, limit int, log *slog.Logger) (*RegistrationLists, error) {
	f, err := openFile(path, convertServices, byNode, log)
	if err != nil {
		return nil, fmt.Errorf("push registrations: %w", err)
	}
	return RegistrationsIn(f, limit, log), nil
}

// InspectRegistrations opens the store in that file for reading, while no other process
// has it open for writing; Enable and the others that change something fail. The
// error of a file that is not there is fs.ErrNotExist.
func InspectRegistrations(path string) (*RegistrationLists, error) {
	f, err := inspectFile(path)
	if err != nil {
		return nil, fmt.Errorf("push registrations: %w", err)
	}
	return RegistrationsIn(f, 0, slog.New(slog.DiscardHandler)), nil
}

// convertServices takes out the registrations of an earlier version, which had a key of owner,
// service and node for each.
func convertServices(tx *bolt.Tx) (lists map[string][]Service, leftOut int, err error) {
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
		key := userValue(string(parts[0]))
		lists[key] = append(lists[key], Service{PubSub: jid.JID(parts[1]), Node: string(parts[2]), Options: old.Options, Created: created(old.Created), Sessions: old.Sessions})
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return lists, leftOut, tx.DeleteBucket(name)
}
