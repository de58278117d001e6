package outbox

import (
	"errors"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Inspection is an outbox that this process holds without running it: nothing is
// delivered, and no other process can open it until Close.
type Inspection struct {
	*Letters
	// Backends are all that the outbox knows, configured or not, by name. After a crash
	// of the instance up to 50 ms of its last events are missing in Waiting and Settled.
	Backends []BackendRecovery
	// Clean says that the instance before has stopped in order.
	Clean bool
}

// Inspect takes the lock of the outbox in dir, waiting for at most timeout, and
// reads what it keeps. It creates nothing: the error wraps fs.ErrNotExist if there is no
// outbox, and is a *LockedError if another process runs it.
func Inspect(dir string, timeout time.Duration) (*Inspection, error) {
	s, err := openAlone(dir, timeout)
	if err != nil {
		return nil, err
	}
	i := &Inspection{Letters: s}
	err = s.db.View(func(tx *bolt.Tx) error {
		i.Clean = tx.Bucket(bucketMeta).Get(keyClean) != nil
		all, err := loadReaders(tx)
		if err != nil {
			return err
		}
		end, err := loadEnd(tx)
		if err != nil {
			return err
		}
		for name, r := range all {
			b, err := (&namedRecord{name, r}).recovery(tx, &end)
			if err != nil {
				return err
			}
			i.Backends = append(i.Backends, b)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	slices.SortFunc(i.Backends, func(a, b BackendRecovery) int { return strings.Compare(a.Name, b.Name) })
	return i, nil
}
