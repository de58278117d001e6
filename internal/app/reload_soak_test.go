//go:build soak

package app

import "testing"

func TestSoakReload(t *testing.T) { testReloads(t, 50) }
