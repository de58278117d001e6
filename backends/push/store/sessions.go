package store

import "slices"

// keptSessions is how many sessions of one service are remembered. Clients make up a
// resource for each connection, and of the old ones only those matter that wait to be
// resumed (XEP-0198).
const keptSessions = 8

// asking returns the session that asks for a service, empty if there is none, or if
// its name is longer than what is kept of any.
func (s *Service) asking() string {
	if len(s.Sessions) == 0 || len(s.Sessions[0]) > MaxName {
		return ""
	}
	return s.Sessions[0]
}

// entered returns sessions with a new one at their front.
func entered(sessions []string, session string) []string {
	if session == "" {
		return sessions
	}
	list, _ := left(slices.Clone(sessions), session)
	list = slices.Insert(list, 0, session)
	return list[:min(len(list), keptSessions)]
}

// left removes a session from others and reports whether it was there. The slice is
// changed.
func left(sessions []string, session string) ([]string, bool) {
	at := slices.Index(sessions, session)
	if at < 0 || session == "" {
		return sessions, false
	}
	return slices.Delete(sessions, at, at+1), true
}
