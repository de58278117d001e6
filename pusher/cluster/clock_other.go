//go:build !linux

package cluster

import "time"

func boot() time.Duration { return monotonic() }
