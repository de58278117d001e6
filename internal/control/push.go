package control

import (
	"context"
	"net/http"
	"net/url"

	"eventpusher/backends/push"
	"eventpusher/internal/jid"
)

// Push is what commands do with push registrations. Users are bare JIDs. It is safe
// for concurrent use.
type Push interface {
	// Explain says what is known about push for a user.
	Explain(ctx context.Context, user jid.JID) (push.Explanation, error)
	// Remove removes registrations and says how many: that of a node, with an empty
	// node those of a service, with an empty service all of the user.
	Remove(ctx context.Context, user, service jid.JID, node string) (int, error)
}

// HandlePush has the server answer the commands about push as well. It is called
// before Run.
func (s *Server) HandlePush(p Push) {
	s.mux.HandleFunc("GET /push", func(w http.ResponseWriter, r *http.Request) {
		e, err := p.Explain(r.Context(), jid.JID(r.URL.Query().Get("user")))
		if err != nil {
			answer(w, http.StatusInternalServerError, failure{err.Error()})
			return
		}
		answer(w, http.StatusOK, e)
	})
	s.mux.HandleFunc("POST /push/disable", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		user := jid.JID(q.Get("user"))
		n, err := p.Remove(r.Context(), user, jid.JID(q.Get("service")), q.Get("node"))
		if err != nil {
			answer(w, http.StatusInternalServerError, failure{err.Error()})
			return
		}
		s.log.Info("push registrations removed by command", "count", n)
		answer(w, http.StatusOK, count{n})
	})
}

var _ Push = (*Client)(nil)

// Explain implements Push. An instance without push is an error.
func (c *Client) Explain(ctx context.Context, user jid.JID) (e push.Explanation, err error) {
	err = c.askWithin(ctx, http.MethodGet, "/push", url.Values{"user": {string(user)}}, &e)
	return e, err
}

// Remove implements Push. An instance without push is an error.
func (c *Client) Remove(ctx context.Context, user, service jid.JID, node string) (int, error) {
	var n count
	err := c.askWithin(ctx, http.MethodPost, "/push/disable", url.Values{"user": {string(user)}, "service": {string(service)}, "node": {node}}, &n)
	return n.Count, err
}
