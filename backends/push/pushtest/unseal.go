package pushtest

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"testing"
)

// Unseal decrypts what was encrypted with AES-128 in GCM, with its tag at the end. All texts
// are base64.
func Unseal(t testing.TB, key, iv, data string) string {
	t.Helper()
	var raw [3][]byte
	for i, text := range [...]string{key, iv, data} {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		raw[i] = b
	}
	block, err := aes.NewCipher(raw[0])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := gcm.Open(nil, raw[1], raw[2], nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}
