//go:build linux

package harness

import (
	"context"
	"testing"
)

func TestPostgreSQL(t *testing.T) {
	d := PostgreSQL(t)
	ctx := context.Background()
	if _, err := d.Dial().Exec(ctx, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)"); err != nil {
		t.Fatal(err)
	}
	d.Kill()
	d.Start()
	var n int
	if err := d.Dial().QueryRow(ctx, "SELECT n FROM kept").Scan(&n); err != nil || n != 7 {
		t.Errorf("got %d, %v", n, err)
	}
}
