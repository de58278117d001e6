package control

import (
	"context"
	"errors"
	"net/http"

	"eventpusher/config"
)

// reloaded is the answer to a reload.
type reloaded struct {
	Problems []config.Problem `json:"problems"`
	Error    string           `json:"error,omitempty"`
}

// HandleReload has the server answer the command reload as well. It is called before Run.
func (s *Server) HandleReload(reload func(context.Context) ([]config.Problem, error)) {
	s.mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		problems, err := reload(r.Context())
		out := reloaded{Problems: problems}
		if err != nil {
			out.Error = err.Error()
		}
		answer(w, http.StatusOK, out)
	})
}

// Reload has the instance read its configuration again, and returns the problems of that. With
// an error the configuration from before holds.
func (c *Client) Reload(ctx context.Context) ([]config.Problem, error) {
	var out reloaded
	err := c.askWithin(ctx, http.MethodPost, "/reload", nil, &out)
	if err == nil && out.Error != "" {
		err = errors.New(out.Error)
	}
	return out.Problems, err
}

// HandleReady has the server say why the instance is not ready: one line each. It is called
// before Run.
func (s *Server) HandleReady(notReady func() []string) {
	s.mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, notReady()) })
}

// NotReady returns why the instance is not ready, nothing if it is.
func (c *Client) NotReady(ctx context.Context) (reasons []string, err error) {
	err = c.askWithin(ctx, http.MethodGet, "/ready", nil, &reasons)
	return reasons, err
}
