package pushtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// verifyToken checks the signature of a compact JSON Web Token by the public key and
// decodes its two parts.
func verifyToken(token string, key crypto.PublicKey, header, claims any) error {
	signed, signature64, found := cutLast(token, '.')
	if !found {
		return errors.New("not three parts")
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(signature64)
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	digest := sha256.Sum256([]byte(signed))
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if len(signature) != 64 {
			return fmt.Errorf("signature of %d bytes", len(signature))
		}
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		if !ecdsa.Verify(key, digest[:], r, s) {
			return errors.New("signature by another key")
		}
	case *rsa.PublicKey:
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature); err != nil {
			return err
		}
	default:
		return fmt.Errorf("no verification by %T", key)
	}
	parts := strings.Split(signed, ".")
	if len(parts) != 2 {
		return errors.New("not three parts")
	}
	for i, into := range []any{header, claims} {
		text, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, into); err != nil {
			return err
		}
	}
	return nil
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
