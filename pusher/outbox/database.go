package outbox

import (
	"fmt"

	"eventpusher/internal/boltfile"
)

// stateMapping is how much address space state.db gets at once, so that its
// growth does not have to wait for transactions that read.
const stateMapping = 256 << 20

// stateGrowth is by how much the file grows at once.
const stateGrowth = 1 << 20

// database is state.db. If it is damaged, the outbox must be able to say so.
type database = *boltfile.DB

// openDatabase opens a bbolt file, or begins one.
func openDatabase(path string) (database, error) {
	db, err := boltfile.Open(path, boltfile.Options{
		Remedy:  "restore it from a copy, or move it and the directory segments away to begin anew without what waits",
		Mapping: stateMapping, Growth: stateGrowth,
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	return db, nil
}
