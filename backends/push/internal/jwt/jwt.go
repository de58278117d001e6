// Package jwt signs JSON Web Tokens (RFC 7519) in the compact form, which is all
// that push providers ask for.
package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
)

// coordinate is the size of a number of a P-256 signature (RFC 7518 section 3.4).
const coordinate = 32

// Header is the JOSE header; the algorithm is filled in.
type Header struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ,omitempty"`
	KeyID     string `json:"kid,omitempty"`
}

// ES256 signs claims with a key on P-256. The same claims give the same token
// (RFC 6979), so that processes that share a key and a clock share tokens.
func ES256(key *ecdsa.PrivateKey, h Header, claims any) (string, error) {
	h.Algorithm = "ES256"
	return sign(h, claims, func(digest []byte) ([]byte, error) {
		der, err := key.Sign(nil, digest, crypto.SHA256)
		if err != nil {
			return nil, err
		}
		var numbers struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &numbers); err != nil {
			return nil, err
		}
		signature := make([]byte, 2*coordinate)
		numbers.R.FillBytes(signature[:coordinate])
		numbers.S.FillBytes(signature[coordinate:])
		return signature, nil
	})
}

// RS256 signs claims with an RSA key.
func RS256(key *rsa.PrivateKey, h Header, claims any) (string, error) {
	h.Algorithm = "RS256"
	return sign(h, claims, func(digest []byte) ([]byte, error) {
		return rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest)
	})
}

func sign(h Header, claims any, signature func(digest []byte) ([]byte, error)) (string, error) {
	var token []byte
	for _, part := range [...]any{h, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			return "", fmt.Errorf("jwt: %w", err)
		}
		token = append(base64.RawURLEncoding.AppendEncode(token, text), '.')
	}
	token = token[:len(token)-1]
	digest := sha256.Sum256(token)
	signed, err := signature(digest[:])
	if err != nil {
		return "", fmt.Errorf("jwt: sign: %w", err)
	}
	return string(base64.RawURLEncoding.AppendEncode(append(token, '.'), signed)), nil
}

// ParseES256 reads a P-256 key in PEM, PKCS #8 as Apple hands it out.
func ParseES256(pemText string) (*ecdsa.PrivateKey, error) {
	key, err := parse(pemText)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("the key is not on the curve P-256")
	}
	return ec, nil
}

// ParseRS256 reads an RSA key in PEM, PKCS #8 as Google hands it out.
func ParseRS256(pemText string) (*rsa.PrivateKey, error) {
	key, err := parse(pemText)
	if err != nil {
		return nil, err
	}
	r, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the key is not for RSA")
	}
	return r, nil
}

// parse keeps what it read out of its errors.
func parse(pemText string) (any, error) {
	block, _ := pem.Decode([]byte(pemText))
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New(`no "PRIVATE KEY" in PEM form`)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the private key is damaged")
	}
	return key, nil
}
