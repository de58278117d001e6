package fcm

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/jwt"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/config"
)

const (
	scope      = "https://www.googleapis.com/auth/firebase.messaging"
	tokenURL   = "https://oauth2.googleapis.com/token"
	grantType  = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	assertTime = time.Hour // the longest that Google takes

	// renewBefore the end of an access token's life another is asked for; until then
	// the old one does when none can be had.
	renewBefore = 5 * time.Minute
	// failurePause is how long a failure answers for further calls, so that a service
	// in trouble does not get a request for each notification.
	failurePause = 5 * time.Second
)

// account is a Google service account, which exchanges signed assertions for access
// tokens (RFC 7523 section 2.1). It is safe for concurrent use.
type account struct {
	project string
	email   string
	keyID   string
	key     *rsa.PrivateKey
	target  *url.URL
	client  *provider.Client

	turn chan struct{} // holds one value while nobody looks at what follows
	accessToken
	failed   error
	failedAt time.Time
}

type accessToken struct {
	token   string
	expires time.Time
}

// parseAccount reads the JSON file of a service account.
func parseAccount(text config.Secret, o provider.Options, t *config.TLS) (*account, error) {
	var file struct {
		Type       string `json:"type"`
		ProjectID  string `json:"project_id"`
		KeyID      string `json:"private_key_id"`
		PrivateKey string `json:"private_key"`
		Email      string `json:"client_email"`
		TokenURI   string `json:"token_uri"`
	}
	const remedy = "give the content of the JSON file that the Firebase console makes under Service accounts"
	if json.Unmarshal([]byte(text.Reveal()), &file) != nil {
		// The parser's error may quote the key.
		if strings.Contains(text.Reveal(), "-----BEGIN PRIVATE KEY-----\n") {
			return nil, errors.New(`service account: not JSON, since its \n have become line ends; write it between ''' in place of """, or set credentials_file`)
		}
		return nil, errors.New("service account: not JSON; " + remedy)
	}
	if file.Type != "service_account" || file.ProjectID == "" || file.Email == "" {
		return nil, errors.New("service account: type, project_id or client_email are missing or of something else; " + remedy)
	}
	key, err := jwt.ParseRS256(file.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("service account: private_key: %w", err)
	}
	target, err := provider.ParseBase(file.TokenURI, tokenURL)
	if err != nil {
		return nil, fmt.Errorf("service account: token_uri %w", err)
	}
	client, err := provider.New(o, t, target.Hostname(), nil)
	if err != nil {
		return nil, err
	}
	a := &account{
		project: file.ProjectID, email: file.Email, keyID: file.KeyID, key: key,
		target: target, client: client, turn: make(chan struct{}, 1),
	}
	a.turn <- struct{}{}
	return a, nil
}

// access returns a token that is not refused, the one that was refused before; "" for
// none. Whoever comes first asks for one; others wait for it, as long as their ctx.
func (a *account) access(ctx context.Context, refused string) (string, error) {
	select {
	case <-a.turn:
		defer func() { a.turn <- struct{}{} }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return "", err // both were ready
	}
	now := time.Now()
	if a.token == refused {
		a.token = ""
	}
	if a.token != "" && now.Before(a.expires.Add(-renewBefore)) {
		return a.token, nil
	}
	usable := a.token != "" && now.Before(a.expires)
	if a.failed != nil && now.Sub(a.failedAt) < failurePause {
		if usable {
			return a.token, nil
		}
		return "", a.failed
	}
	// The others wait for this too: one caller's end must not spoil it. The client's
	// own timeout bounds it.
	fresh, err := a.exchange(context.WithoutCancel(ctx), now)
	if err != nil {
		a.failed, a.failedAt = err, time.Now()
		if usable {
			return a.token, nil
		}
		return "", err
	}
	a.accessToken, a.failed = fresh, nil
	return a.token, nil
}

// tokenError says that the token service answered, but with no token.
type tokenError struct{ err error }

// Error implements error.
func (e *tokenError) Error() string { return "access token: " + e.err.Error() }

// Unwrap returns what its answer means.
func (e *tokenError) Unwrap() error { return e.err }

func (a *account) exchange(ctx context.Context, now time.Time) (accessToken, error) {
	assertion, err := jwt.RS256(a.key, jwt.Header{Type: "JWT", KeyID: a.keyID}, struct {
		Issuer   string `json:"iss"`
		Scope    string `json:"scope"`
		Audience string `json:"aud"`
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}{a.email, scope, a.target.String(), now.Unix(), now.Add(assertTime).Unix()})
	if err != nil {
		return accessToken{}, backends.Paused(err)
	}
	form := url.Values{"grant_type": {grantType}, "assertion": {assertion}}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	answer, err := a.client.Post(ctx, a.target, header, []byte(form.Encode()))
	if err != nil {
		return accessToken{}, fmt.Errorf("access token: %w", err)
	}
	var says struct {
		Token   string `json:"access_token"`
		Expires int64  `json:"expires_in"` // seconds
		Error   string `json:"error"`      // RFC 6749 section 5.2
	}
	damaged := json.Unmarshal(answer.Body, &says)
	switch {
	case answer.Status >= 400 && answer.Status <= 403:
		err := answer.Err(says.Error)
		return accessToken{}, backends.Paused(fmt.Errorf("access token: %w: the service account %s is refused; check that it exists and this machine's clock", err, a.email))
	case answer.Status != http.StatusOK:
		return accessToken{}, &tokenError{answer.Verdict(answer.Err(says.Error))}
	case damaged != nil || says.Token == "" || says.Expires <= 0:
		return accessToken{}, &tokenError{errors.New("the answer holds none")}
	}
	return accessToken{says.Token, now.Add(time.Duration(min(says.Expires, 86400)) * time.Second)}, nil
}
