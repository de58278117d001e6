package webpush

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"eventpusher/backends/push/notify"
)

const (
	// maxBody is what every push service has to take (RFC 8030 section 7.2), and our
	// record size: there is one record.
	maxBody  = 4096
	saltSize = 16
	authSize = 16
	keySize  = 65 // an uncompressed point on P-256

	headerSize = saltSize + 4 + 1 + keySize
	// maxPlaintext leaves room for the header, the delimiter and the tag of AES-GCM.
	maxPlaintext = maxBody - headerSize - 1 - 16
)

// receiver is the other end of a subscription's encryption.
type receiver struct {
	key  *ecdh.PublicKey
	auth []byte
}

// ErrKeys says that the keys of a subscription are none.
var ErrKeys = errors.New("malformed keys")

// parseReceiver reads the keys of a subscription. Some clients pad them or use the
// alphabet of plain base64.
func parseReceiver(t *notify.Target) (*receiver, error) {
	point, err := decode(t.P256DH)
	if err != nil || len(point) != keySize {
		return nil, fmt.Errorf("%w: p256dh must be 65 bytes in base64url", ErrKeys)
	}
	key, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("%w: p256dh is no point on P-256", ErrKeys)
	}
	auth, err := decode(t.Auth.Reveal())
	if err != nil || len(auth) != authSize {
		return nil, fmt.Errorf("%w: auth must be 16 bytes in base64url", ErrKeys)
	}
	return &receiver{key, auth}, nil
}

var urlAlphabet = strings.NewReplacer("+", "-", "/", "_")

func decode(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(urlAlphabet.Replace(strings.TrimRight(s, "=")))
}

// encrypt returns the body for plaintext with pad bytes of padding, by keys that are
// used once.
func (r *receiver) encrypt(plaintext []byte, pad int) ([]byte, error) {
	ephemeral, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:]) // never fails
	return r.seal(plaintext, pad, ephemeral, salt[:])
}

// seal is RFC 8291 section 3.4: one record of aes128gcm (RFC 8188), whose header holds
// salt, record size and our public key.
func (r *receiver) seal(plaintext []byte, pad int, ephemeral *ecdh.PrivateKey, salt []byte) ([]byte, error) {
	secret, err := ephemeral.ECDH(r.key)
	if err != nil {
		return nil, err
	}
	ours := ephemeral.PublicKey().Bytes()
	info := "WebPush: info\x00" + string(r.key.Bytes()) + string(ours)
	material, err := hkdf.Key(sha256.New, secret, r.auth, info, sha256.Size)
	if err != nil {
		return nil, err
	}
	random, err := hkdf.Extract(sha256.New, material, salt)
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Expand(sha256.New, random, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, err
	}
	nonce, err := hkdf.Expand(sha256.New, random, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	body := make([]byte, 0, headerSize+len(plaintext)+1+pad+gcm.Overhead())
	body = append(body, salt...)
	body = binary.BigEndian.AppendUint32(body, maxBody)
	body = append(append(body, keySize), ours...)
	// The delimiter 2 marks the last record; zeros behind it are padding.
	record := append(append(body[headerSize:], plaintext...), 2)
	record = append(record, make([]byte, pad)...)
	return gcm.Seal(body, nonce, record, nil), nil
}

// padding returns how much makes size a multiple of block, as far as there is room.
func padding(size, block int) int {
	if over := size % block; over > 0 {
		return min(block-over, maxPlaintext-size)
	}
	return 0
}
