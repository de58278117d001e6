package tlsconfig

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"strings"

	"eventpusher/config"
)

// The algorithms of PKCS #5 version 2.1 (RFC 8018) that OpenSSL writes.
var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}

	keySizes = map[string]int{
		"2.16.840.1.101.3.4.1.2":  16, // AES-128-CBC
		"2.16.840.1.101.3.4.1.22": 24,
		"2.16.840.1.101.3.4.1.42": 32,
	}
	hashes = map[string]func() hash.Hash{
		"1.2.840.113549.2.7":  sha1.New, // HMAC-SHA1
		"1.2.840.113549.2.9":  sha256.New,
		"1.2.840.113549.2.10": sha512.New384,
		"1.2.840.113549.2.11": sha512.New,
	}
)

// maxIterations bounds the work that a key file can ask for.
const maxIterations = 10_000_000

var errPassword = errors.New("the password does not open the key")

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2 struct{ Derivation, Encryption pkix.AlgorithmIdentifier }

type derivation struct {
	Salt       []byte
	Iterations int
	KeySize    int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// decryptKey returns the key of data in the clear: as it is unless it is
// encrypted PKCS #8 (RFC 5958 section 3), which the password opens.
func decryptKey(data []byte, password config.Secret) ([]byte, error) {
	block, _ := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("no key in PEM form")
	case strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, errors.New("the key is encrypted in a form without integrity; convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc")
	case block.Type != "ENCRYPTED PRIVATE KEY":
		return data, nil
	case password == "":
		return nil, errors.New("the key is encrypted; set password")
	}
	var key encryptedKey
	if _, err := asn1.Unmarshal(block.Bytes, &key); err != nil {
		return nil, fmt.Errorf("not a PKCS #8 key: %w", err)
	}
	clear, err := decryptPBES2(key, password.Reveal())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: clear}), nil
}

func decryptPBES2(key encryptedKey, password string) ([]byte, error) {
	var scheme pbes2
	var kdf derivation
	var iv []byte
	if !key.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, fmt.Errorf("the key is encrypted by %v; only PBES2 is supported: openssl pkcs8 -topk8 -v2 aes-256-cbc", key.Algorithm.Algorithm)
	}
	if _, err := asn1.Unmarshal(key.Algorithm.Parameters.FullBytes, &scheme); err != nil {
		return nil, fmt.Errorf("PBES2 parameters: %w", err)
	}
	size := keySizes[scheme.Encryption.Algorithm.String()]
	if size == 0 || !scheme.Derivation.Algorithm.Equal(oidPBKDF2) {
		return nil, fmt.Errorf("the key needs PBKDF2 and AES-CBC, not %v and %v: openssl pkcs8 -topk8 -v2 aes-256-cbc",
			scheme.Derivation.Algorithm, scheme.Encryption.Algorithm)
	}
	if _, err := asn1.Unmarshal(scheme.Derivation.Parameters.FullBytes, &kdf); err != nil {
		return nil, fmt.Errorf("PBKDF2 parameters: %w", err)
	}
	if _, err := asn1.Unmarshal(scheme.Encryption.Parameters.FullBytes, &iv); err != nil {
		return nil, fmt.Errorf("AES parameters: %w", err)
	}
	prf := sha1.New // the default of RFC 8018 appendix A.2
	if len(kdf.PRF.Algorithm) > 0 {
		if prf = hashes[kdf.PRF.Algorithm.String()]; prf == nil {
			return nil, fmt.Errorf("the key needs the unknown function %v", kdf.PRF.Algorithm)
		}
	}
	if kdf.Iterations < 1 || kdf.Iterations > maxIterations || len(iv) != aes.BlockSize ||
		len(key.Data) == 0 || len(key.Data)%aes.BlockSize != 0 {
		return nil, errors.New("the encrypted key is damaged")
	}
	derived, err := pbkdf2.Key(prf, password, kdf.Salt, kdf.Iterations, size)
	if err != nil {
		return nil, err
	}
	aesCipher, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	clear := make([]byte, len(key.Data))
	cipher.NewCBCDecrypter(aesCipher, iv).CryptBlocks(clear, key.Data)
	pad := int(clear[len(clear)-1])
	if pad == 0 || pad > aes.BlockSize {
		return nil, errPassword
	}
	for _, b := range clear[len(clear)-pad:] {
		if int(b) != pad {
			return nil, errPassword
		}
	}
	return clear[:len(clear)-pad], nil
}
