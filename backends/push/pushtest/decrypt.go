package pushtest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// decrypt opens a body of RFC 8188 by the keys of RFC 8291, the way those texts put
// it: by HMAC, without what the sender uses.
func (a *agent) decrypt(body []byte) ([]byte, error) {
	if len(body) < 86 || body[20] != 65 {
		return nil, errors.New("no header with a key on P-256")
	}
	salt, size, theirs, record := body[:16], binary.BigEndian.Uint32(body[16:20]), body[21:86], body[86:]
	if uint64(len(record)) > uint64(size) {
		return nil, fmt.Errorf("more than one record of %d bytes", size)
	}
	public, err := ecdh.P256().NewPublicKey(theirs)
	if err != nil {
		return nil, err
	}
	shared, err := a.key.ECDH(public)
	if err != nil {
		return nil, err
	}
	info := bytes.Join([][]byte{[]byte("WebPush: info\x00"), a.key.PublicKey().Bytes(), theirs, {1}}, nil)
	input := mac(mac(a.auth, shared), info)
	pseudoRandom := mac(salt, input)
	key := mac(pseudoRandom, []byte("Content-Encoding: aes128gcm\x00\x01"))[:16]
	nonce := mac(pseudoRandom, []byte("Content-Encoding: nonce\x00\x01"))[:12]
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	padded, err := gcm.Open(nil, nonce, record, nil)
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexFunc(padded, func(r rune) bool { return r != 0 })
	if end < 0 || padded[end] != 2 {
		return nil, errors.New("not the last record")
	}
	return padded[:end], nil
}

func mac(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}
