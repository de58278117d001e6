package http

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"eventpusher/config"
)

// signer makes the signatures of Standard Webhooks 1.0.0
// (https://github.com/standard-webhooks/standard-webhooks), one for each key, so that a
// receiver can change keys while both are valid. It is safe for concurrent use.
type signer []func(signed []byte) string

func newSigner(keys []config.SigningKey) (s signer, err error) {
	for _, k := range keys {
		text := k.Key.Reveal()
		if encoded, ok := strings.CutPrefix(text, config.SigningSecret); ok {
			key, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				return nil, errors.New("signing_key: the key is not in base64")
			}
			s = append(s, func(signed []byte) string {
				mac := hmac.New(sha256.New, key)
				mac.Write(signed)
				return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
			})
			continue
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, config.SigningPrivate))
		if err != nil || len(key) < ed25519.SeedSize {
			return nil, errors.New("signing_key: the key is not in base64, or too short")
		}
		private := ed25519.NewKeyFromSeed(key[:ed25519.SeedSize])
		s = append(s, func(signed []byte) string {
			return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(private, signed))
		})
	}
	return s, nil
}

// sign returns the values of webhook-timestamp and webhook-signature for the bytes that go
// out in this attempt.
func (s signer) sign(id string, body []byte, now time.Time) (timestamp, signatures string) {
	timestamp = strconv.FormatInt(now.Unix(), 10)
	signed := append([]byte(id+"."+timestamp+"."), body...)
	all := make([]string, len(s))
	for i, one := range s {
		all[i] = one(signed)
	}
	return timestamp, strings.Join(all, " ")
}
