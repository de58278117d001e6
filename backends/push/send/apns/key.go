package apns

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"sync"
	"time"

	"eventpusher/backends/push/internal/jwt"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/config"
)

const (
	// minHeld is how long Apple wants a token to be used before it sees another; it
	// answers TooManyProviderTokenUpdates to those who do not wait.
	minHeld = 20 * time.Minute
	// window is what issue times are rounded down to. A token's age is so at most
	// window + minHeld, below the hour after which Apple refuses it.
	window = 30 * time.Minute
)

// Key is an authentication key of a developer account and the token made with it
// that is in use. All senders of a key share one Key, production and sandbox too,
// since Apple counts the tokens of a key together. It is safe for concurrent use.
//
// A token carries as its time of issue the last full half hour, and the signature
// is deterministic: a process that restarts, and another that uses the same key,
// come by the same token and not by one more.
type Key struct {
	id, team string
	private  *ecdsa.PrivateKey
	now      func() time.Time

	mu     sync.Mutex
	token  string
	issued time.Time // as the token says
	since  time.Time // when it came into use
}

// NewKey returns the key with the given id of the team; both have 10 characters.
// p8 is the file that Apple hands out, in PEM.
func NewKey(id, team string, p8 config.Secret) (*Key, error) {
	if !isAppleID(id) {
		return nil, provider.WrongOption("key_id", fmt.Errorf("apns: key id %q must be the 10 letters and digits of the key's page", id))
	}
	if !isAppleID(team) {
		return nil, provider.WrongOption("team_id", fmt.Errorf("apns: team id %q must be the 10 letters and digits of the account's membership page", team))
	}
	private, err := jwt.ParseES256(p8.Reveal())
	if err != nil {
		return nil, provider.WrongOption("key", fmt.Errorf("apns: key %s: %w; give the .p8 file that Apple hands out", id, err))
	}
	return &Key{id: id, team: team, private: private, now: time.Now}, nil
}

func isAppleID(s string) bool {
	for _, r := range s {
		if (r < 'A' || r > 'Z') && (r < '0' || r > '9') {
			return false
		}
	}
	return len(s) == 10
}

// current returns the token to send, a new one when the old is due.
func (k *Key) current() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	// The wall clock alone counts, since it is what Apple compares with: it goes on
	// while a machine sleeps, and a clock that was set makes another token due.
	now := k.now().Round(0)
	start := now.Truncate(window)
	due := start.After(k.issued) && now.Sub(k.since) >= minHeld
	if k.token == "" || due || now.Before(k.issued) {
		return k.renewLocked(now, start)
	}
	return k.token, nil
}

// errTooYoung says that a token was refused as expired which cannot be.
var errTooYoung = errors.New("a token that came into use less than 20 minutes ago is called expired: set this machine's clock")

// afterExpiry returns the token to send after Apple has called old expired: the one
// that has replaced it, or a new one unless that would be one too many.
func (k *Key) afterExpiry(old string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.token != old {
		return k.token, nil
	}
	now := k.now().Round(0)
	if now.Sub(k.since) < minHeld {
		return "", errTooYoung
	}
	// The rounded time may be the one that was refused.
	return k.renewLocked(now, now)
}

func (k *Key) renewLocked(now, issued time.Time) (string, error) {
	token, err := jwt.ES256(k.private, jwt.Header{KeyID: k.id}, struct {
		Issuer   string `json:"iss"`
		IssuedAt int64  `json:"iat"`
	}{k.team, issued.Unix()})
	if err != nil {
		return "", fmt.Errorf("apns: key %s: %w", k.id, err)
	}
	k.token, k.issued, k.since = token, issued, now
	return token, nil
}
