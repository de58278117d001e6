package webpush

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"eventpusher/backends/push/internal/jwt"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/config"
)

const (
	// tokenLife is well within the day that RFC 8292 section 2 allows.
	tokenLife = 12 * time.Hour
	// tokenUse is how long a token is sent, so that some life is left when it arrives
	// late or clocks differ.
	tokenUse = tokenLife / 2
	// maxTokens bounds the tokens that are kept, since users name their origins.
	maxTokens = 1024
)

// VAPID identifies this sender to push services (RFC 8292). Subscriptions of browsers
// are bound to its public key: with another key they are lost. It is safe for
// concurrent use.
type VAPID struct {
	key     *ecdsa.PrivateKey
	public  string
	subject string
	tokens  *lru.Cache[string, vapidToken]
}

type vapidToken struct {
	header string
	made   time.Time
}

// NewVAPID returns the identity with the private key, 32 bytes in base64url. The
// subject is where a push service can reach the operator, as a mailto: or https: URL;
// Apple refuses all notifications of those whose subject is not real.
func NewVAPID(private config.Secret, subject string) (*VAPID, error) {
	raw, err := decode(private.Reveal())
	if err != nil {
		return nil, provider.WrongOption("vapid_key", errors.New("webpush: the VAPID key must be 32 bytes in base64url"))
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	if err != nil {
		return nil, provider.WrongOption("vapid_key", errors.New("webpush: the VAPID key must be 32 bytes in base64url, below the order of P-256"))
	}
	if err := checkSubject(subject); err != nil {
		return nil, provider.WrongOption("subject", fmt.Errorf("webpush: the VAPID subject %q %w", subject, err))
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("webpush: %w", err)
	}
	tokens, err := lru.New[string, vapidToken](maxTokens)
	if err != nil {
		return nil, err
	}
	return &VAPID{key: key, public: base64.RawURLEncoding.EncodeToString(point), subject: subject, tokens: tokens}, nil
}

// GenerateVAPIDKey returns a new private key in the form that NewVAPID reads.
func GenerateVAPIDKey() (config.Secret, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	raw, err := key.Bytes()
	if err != nil {
		return "", err
	}
	return config.Secret(base64.RawURLEncoding.EncodeToString(raw)), nil
}

// PublicKey returns what clients give as applicationServerKey when they subscribe.
func (v *VAPID) PublicKey() string { return v.public }

// authorization returns the header for the origin of a push service.
func (v *VAPID) authorization(origin string, now time.Time) (string, error) {
	if kept, ok := v.tokens.Get(origin); ok && now.Sub(kept.made).Abs() < tokenUse {
		return kept.header, nil
	}
	token, err := v.sign(origin, now)
	if err != nil {
		return "", err
	}
	header := "vapid t=" + token + ", k=" + v.public
	v.tokens.Add(origin, vapidToken{header, now})
	return header, nil
}

// sign makes a token for the origin.
func (v *VAPID) sign(origin string, now time.Time) (string, error) {
	return jwt.ES256(v.key, jwt.Header{Type: "JWT"}, struct {
		Audience string `json:"aud"`
		Expires  int64  `json:"exp"`
		Subject  string `json:"sub"`
	}{origin, now.Add(tokenLife).Unix(), v.subject})
}

// checkSubject refuses what push services are known to refuse.
func checkSubject(subject string) error {
	const remedy = "must be mailto:name@domain or https://domain, with a domain that exists"
	if address, isMail := strings.CutPrefix(subject, "mailto:"); isMail {
		parsed, err := mail.ParseAddress(address)
		if err != nil || parsed.Address != address {
			return errors.New(remedy)
		}
		return checkDomain(address[strings.LastIndexByte(address, '@')+1:])
	}
	u, err := url.Parse(subject)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return errors.New(remedy)
	}
	return checkDomain(u.Hostname())
}

// unreal are domains that nobody can own (RFC 6761, RFC 6762, RFC 8375).
var unreal = [...]string{"localhost", "local", "invalid", "test", "home.arpa", "localdomain", "internal"}

func checkDomain(domain string) error {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	_, err := netip.ParseAddr(strings.Trim(domain, "[]"))
	if err == nil || !strings.Contains(domain, ".") {
		return errors.New("needs a public domain name")
	}
	for _, suffix := range unreal {
		if strings.HasSuffix("."+domain, "."+suffix) {
			return fmt.Errorf("has a domain under .%s, which push services refuse", suffix)
		}
	}
	return nil
}
