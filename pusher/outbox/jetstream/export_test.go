package jetstream

import "context"

// Crash ends an Engine as a killed process would end it: nothing is saved or given
// up any more.
func (e *Engine) Crash() {
	e.nc.Close()
	e.stop()
	e.running.Wait()
}

// Flush saves now.
func (e *Engine) Flush() error { return e.save() }

// Trim removes now what every backend has had.
func (e *Engine) Trim() (over bool, err error) { return e.trim() }

// LogSize returns the bytes and the messages of all partitions.
func (e *Engine) LogSize() (bytes, messages uint64) {
	for _, s := range e.set.Load().logs {
		info, err := s.Info(context.Background())
		if err != nil {
			panic(err)
		}
		bytes += info.State.Bytes
		messages += info.State.Msgs
	}
	return bytes, messages
}

// ConnectedTo reports whether the client is connected to the server at url.
func (e *Engine) ConnectedTo(url string) bool { return e.nc.ConnectedUrl() == url }
