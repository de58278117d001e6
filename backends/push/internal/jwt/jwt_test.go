package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
)

type claims struct {
	Number int `json:"n"`
}

// take splits a token and checks its readable parts.
func take(t *testing.T, token, header, payload string) (signed, signature []byte) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts in %s", len(parts), token)
	}
	for i, want := range []string{header, payload} {
		got, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil || string(got) != want {
			t.Errorf("part %d is %s, %v, want %s", i, got, err, want)
		}
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	return []byte(parts[0] + "." + parts[1]), signature
}

// TestES256 signs often enough that some numbers of a signature begin with zeros.
func TestES256(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short := 0
	for i := range 600 {
		token, err := ES256(key, Header{KeyID: "k"}, claims{i})
		if err != nil {
			t.Fatal(err)
		}
		signed, signature := take(t, token, `{"alg":"ES256","kid":"k"}`, `{"n":`+big.NewInt(int64(i)).String()+`}`)
		if len(signature) != 64 {
			t.Fatalf("a signature of %d bytes", len(signature))
		}
		if signature[0] == 0 || signature[32] == 0 {
			short++
		}
		digest := sha256.Sum256(signed)
		if !ecdsa.Verify(&key.PublicKey, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
			t.Fatalf("signature %d does not hold", i)
		}
		if again, err := ES256(key, Header{KeyID: "k"}, claims{i}); err != nil || again != token {
			t.Fatalf("the same claims give another token, %v", err)
		}
	}
	t.Logf("%d numbers that begin with a zero", short)
}

func TestRS256(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	token, err := RS256(key, Header{Type: "JWT"}, claims{1})
	if err != nil {
		t.Fatal(err)
	}
	signed, signature := take(t, token, `{"alg":"RS256","typ":"JWT"}`, `{"n":1}`)
	digest := sha256.Sum256(signed)
	if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
		t.Error(err)
	}
}

func TestClaimsThatJSONCannotHold(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ES256(key, Header{}, make(chan int)); err == nil {
		t.Error("signed")
	}
}

func TestParse(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	if key, err := ParseES256(encode(p256)); err != nil || !key.Equal(p256) {
		t.Errorf("ES256: %v", err)
	}
	if key, err := ParseRS256(encode(rsaKey)); err != nil || !key.Equal(rsaKey) {
		t.Errorf("RS256: %v", err)
	}
	if _, err := ParseES256(encode(rsaKey)); err == nil {
		t.Error("ES256 with a key for RSA")
	}
	if _, err := ParseRS256(encode(p256)); err == nil {
		t.Error("RS256 with a key on a curve")
	}
	for _, damaged := range []string{"", "s3cret", "-----BEGIN PRIVATE KEY-----\nczNjcmV0\n-----END PRIVATE KEY-----\n"} {
		if _, err := ParseRS256(damaged); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", damaged, err)
		}
	}
}
