package app

import (
	"log/slog"
	"time"
)

// crowdEvery is how often users with too many sessions are mentioned.
const crowdEvery = time.Minute

// crowd logs that a user has more sessions than the translator keeps, at most once in
// crowdEvery. One goroutine at a time. Without a logger it is silent.
type crowd struct {
	log   *slog.Logger
	total int // presences left out, as logged
	said  time.Time
}

// note takes how many presences have been left out since the start.
func (c *crowd) note(total int, now time.Time) {
	if c.log == nil || total == c.total || !c.said.IsZero() && now.Sub(c.said) < crowdEvery {
		return
	}
	c.log.Warn("a user has more than 1000 sessions, the further ones make no event and do not count",
		"presences_left_out", total-c.total, "remedy", "limit the sessions of a user in the server, or find out which client leaves so many")
	c.total, c.said = total, now
}
