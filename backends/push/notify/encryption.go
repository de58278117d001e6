package notify

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"eventpusher/backends/push/internal/provider"
)

// NSEncrypt is the namespace of encrypted notifications, and AlgAES128GCM the one algorithm:
// xeps.tigase.net/docs/push-notifications/encrypt.
const (
	NSEncrypt    = "tigase:push:encrypt:0"
	AlgAES128GCM = "aes-128-gcm"
)

// Bounds of what is encrypted, in bytes of base64. MaxSealed leaves room for what the
// providers, which take 4 KiB, get beside it.
const (
	MinSealed     = 256
	MaxSealed     = 3400
	defaultSealed = 3000
)

const (
	keySize   = 16
	nonceSize = 12
	tagSize   = 16
)

// Encryption is how the client of a registration wants its notifications encrypted.
type Encryption struct {
	Key Key `json:"key"`
	// MaxSize is how many bytes of base64 the client takes, between MinSealed and MaxSealed;
	// 0: it has not said.
	MaxSize int `json:"max_size,omitempty"`
}

// Key is one of AES-128. It prints as stars, and is written as base64 in JSON.
type Key []byte

// ParseKey reads a key in base64, with white space anywhere.
func ParseKey(text string) (Key, error) {
	key, err := decodeBase64(text)
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("the key is not %d bytes in base64", keySize)
	}
	return key, nil
}

// Format implements fmt.Formatter: no verb shows the key.
func (Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "***") }

// Private is what is encrypted.
type Private struct {
	Unread int `json:"unread"` // messages of the conversation
	// Sender is a bare JID; of a call the full one, which can be answered. It may be empty.
	Sender   string `json:"sender,omitempty"`
	Type     string `json:"type"` // chat, groupchat, call
	Message  string `json:"message,omitempty"`
	Nickname string `json:"nickname,omitempty"` // of who has written in a room
	SID      string `json:"sid,omitempty"`      // of a call
	// Media are the kinds of a call that somebody proposes. Siskin takes it for the end of a
	// call if they are missing, so that none are not nil.
	Media []string `json:"media,omitzero"`
}

// Encrypted is the element that is in a notification in place of its form.
type Encrypted struct {
	IV   string `xml:"iv,attr"`
	Type string `xml:"type,attr"` // voip: somebody calls
	Data string `xml:",chardata"`
}

// voip is the type of a call.
const voip = "voip"

// Call reports whether somebody calls.
func (e *Encrypted) Call() bool { return e.Type == voip }

// Seal encrypts p with a nonce of its own. A message that is too long for the client loses its
// end; if everything else is too long, type and number are left.
func (e *Encryption) Seal(p Private) (Encrypted, error) {
	limit := e.MaxSize
	if limit == 0 {
		limit = defaultSealed
	}
	most := limit/4*3 - tagSize
	encode := func() ([]byte, error) { return provider.JSON(&p) }
	plain, err := encode()
	if err == nil && len(plain) > most {
		plain, err = shorten(&p.Message, most, encode)
	}
	if err == nil && plain == nil {
		p = Private{Unread: p.Unread, Type: p.Type, Media: p.Media}
		plain, err = encode()
	}
	if err != nil {
		return Encrypted{}, err
	}
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce) // never fails
	sealed, err := seal(e.Key, nonce, plain)
	if err != nil {
		return Encrypted{}, err
	}
	encrypted := Encrypted{IV: base64.StdEncoding.EncodeToString(nonce), Data: base64.StdEncoding.EncodeToString(sealed)}
	if p.Type == "call" {
		encrypted.Type = voip
	}
	return encrypted, nil
}

// seal returns the encrypted text with its tag at the end.
func seal(key Key, nonce, plain []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return gcm.Seal(nil, nonce, plain, nil), nil
}

var errNotEncrypted = errors.New("not what was encrypted with " + AlgAES128GCM)

// Checked returns e in base64 without white space, if that is what may have been encrypted so
// and no provider refuses it for its size.
func (e *Encrypted) Checked() (Encrypted, error) {
	nonce, err := decodeBase64(e.IV)
	if err != nil || len(nonce) != nonceSize {
		return Encrypted{}, errNotEncrypted
	}
	data, err := decodeBase64(e.Data)
	if err != nil || len(data) < tagSize || base64.StdEncoding.EncodedLen(len(data)) > MaxSealed {
		return Encrypted{}, errNotEncrypted
	}
	return Encrypted{IV: base64.StdEncoding.EncodeToString(nonce), Type: e.Type, Data: base64.StdEncoding.EncodeToString(data)}, nil
}

func decodeBase64(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
}
