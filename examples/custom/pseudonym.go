package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher/filter"
)

// pseudonym has the keys of a [[filter]] of type "pseudonym". It adds the metadata
// user_pseudonym, which is the same for all events of a user. Without the key of the filter,
// the pseudonym does not tell who the user is.
type pseudonym struct {
	Key    config.Secret
	Digits int
}

// Keys implements config.Settings.
func (p *pseudonym) Keys() []config.Key {
	return append(config.SecretKeys("key", &p.Key), config.Integer("digits", &p.Digits, 16, 8, 64))
}

// Check implements config.Settings.
func (p *pseudonym) Check(s *config.Section) {
	const shortest = 16
	s.Require("key", "write key_file and a file with 32 random bytes in base64", p.Key == "")
	if p.Key != "" && len(p.Key.Reveal()) < shortest {
		s.Error("key", "is short enough to be guessed", "write 16 characters or more")
	}
}

// Build implements filter.Builder.
func (p *pseudonym) Build(config.Filter) (filter.Judge, error) {
	mac := hmac.New(sha256.New, []byte(p.Key.Reveal()))
	return func(e *event.Event) (filter.Verdict, error) {
		mac.Reset()
		mac.Write([]byte(e.User))
		text := hex.EncodeToString(mac.Sum(nil))[:p.Digits]
		return filter.Verdict{Metadata: event.Metadata{"user_pseudonym": text}}, nil
	}, nil
}
