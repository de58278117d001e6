package outbox

import "time"

// Crash ends an Embedded as a killed process would end it: what has not been
// saved by now is not saved.
func (e *Embedded) Crash() {
	e.stop()
	_ = e.closeFiles()
}

// Quick shortens what tests would wait for.
func (o EmbeddedOptions) Quick(save time.Duration, segment int64) EmbeddedOptions {
	o.saveInterval, o.segmentSize = save, segment
	return o
}

// LogSize returns the bytes of the log.
func (e *Embedded) LogSize() int64 { return e.seg.Size() }
