package demo

import (
	"context"
	"fmt"
	"time"

	"eventpusher/internal/xmppserver"
)

// play lets the scripted users act, rate times a second, until ctx ends.
// A component that drops its connection finds the chat where it was.
func play(ctx context.Context, server *xmppserver.Server, rate float64) error {
	ticker := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer ticker.Stop()
	var session *xmppserver.Session
	for round := 1; ; round++ {
		for _, copies := range script(round) {
			for _, xml := range copies {
				for session == nil || session.Send(xml) != nil {
					var err error
					if session, err = server.Accept(ctx); ctx.Err() != nil {
						return nil
					} else if err != nil {
						return fmt.Errorf("demo: the XMPP server ended: %w", err)
					}
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	}
}
