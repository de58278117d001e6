package http

import (
	"context"
	"errors"
	"fmt"
	nethttp "net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/internal/tlsconfig"
)

// tokenTrial is how old a token has to be when the receiver refuses it, to be taken for
// revoked: a new one that is refused will not be the last one.
const tokenTrial = time.Minute

// tokens fetches access tokens by client credentials (RFC 6749 section 4.4), and keeps
// the last one as long as it is valid. It is safe for concurrent use.
type tokens struct {
	grant  clientcredentials.Config
	client *nethttp.Client
	shown  string // where tokens come from, as errors may show it

	turn    chan struct{} // holds one while somebody uses what follows
	current *oauth2.Token
	fetched time.Time
}

// newTokens returns tokens that are fetched as the transport of the receiver's requests
// fetches, from another host. Of the receiver's TLS options those about its name and about
// who we are do not count there.
func newTokens(o *config.OAuth2, transfer *nethttp.Transport, receiver *config.TLS) (*tokens, error) {
	u, err := url.Parse(o.TokenURL)
	if err != nil {
		return nil, errors.New("oauth2.token_url is no URL")
	}
	var options config.TLS
	if receiver != nil {
		options = *receiver
		options.ServerName, options.DisableSNI = "", false
		options.CertFile, options.KeyFile, options.KeyPassword = "", "", ""
	}
	own := transfer.Clone()
	if own.TLSClientConfig, err = tlsconfig.Client(&options, u.Hostname()); err != nil {
		return nil, err
	}
	return &tokens{
		grant: clientcredentials.Config{ClientID: o.ClientID, ClientSecret: o.ClientSecret.Reveal(), TokenURL: o.TokenURL, Scopes: o.Scopes},
		client: &nethttp.Client{
			Transport:     own,
			CheckRedirect: func(*nethttp.Request, []*nethttp.Request) error { return nethttp.ErrUseLastResponse },
		},
		shown: redact(u), turn: make(chan struct{}, 1),
	}, nil
}

func (t *tokens) close() { t.client.CloseIdleConnections() }

// authorization returns the value of the header Authorization. It blocks until there is a
// token, or ctx ends. Its errors are those of Publish; they hold nothing that the token
// endpoint has said but its error code.
func (t *tokens) authorization(ctx context.Context) (string, error) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-t.turn }()
	if !t.current.Valid() {
		token, err := t.grant.Token(context.WithValue(ctx, oauth2.HTTPClient, t.client))
		if err != nil {
			return "", t.explain(err)
		}
		t.current, t.fetched = token, time.Now()
	}
	return t.current.Type() + " " + t.current.AccessToken, nil
}

// refused takes note that the receiver has refused a token, and reports whether another
// one may help.
func (t *tokens) refused(authorization string) bool {
	t.turn <- struct{}{}
	defer func() { <-t.turn }()
	if t.current == nil || t.current.Type()+" "+t.current.AccessToken != authorization {
		return true // there is another one already
	}
	if time.Since(t.fetched) < tokenTrial {
		return false
	}
	t.current = nil
	return true
}

func (t *tokens) explain(err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		return fmt.Errorf("http: token from %s: %w", t.shown, backends.WithoutURL(err))
	}
	err = fmt.Errorf("http: token from %s: answered %d %s", t.shown, answer.Response.StatusCode, nethttp.StatusText(answer.Response.StatusCode))
	switch answer.ErrorCode { // RFC 6749 section 5.2
	case "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request":
		return backends.Paused(fmt.Errorf("%w, %s: correct client_id, client_secret or scopes of oauth2", err, answer.ErrorCode))
	}
	if code := answer.Response.StatusCode; code >= 400 && code <= 499 && code != nethttp.StatusTooManyRequests && code != nethttp.StatusRequestTimeout {
		return backends.Paused(fmt.Errorf("%w: correct oauth2", err))
	}
	return err
}
