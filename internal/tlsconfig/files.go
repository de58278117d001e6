package tlsconfig

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"eventpusher/config"
)

// loadCertificate reads the client certificate and its key.
func loadCertificate(t *config.TLS) (tls.Certificate, error) {
	if t.CertFile == "" || t.KeyFile == "" {
		return tls.Certificate{}, errors.New("tls: certfile and keyfile are needed together")
	}
	certPEM, err := os.ReadFile(t.CertFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls: certfile: %w", err)
	}
	keyPEM, err := os.ReadFile(t.KeyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls: keyfile: %w", err)
	}
	if keyPEM, err = decryptKey(keyPEM, t.KeyPassword); err != nil {
		return tls.Certificate{}, fmt.Errorf("tls: keyfile %s: %w", t.KeyFile, err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls: certfile %s and keyfile %s: %w", t.CertFile, t.KeyFile, err)
	}
	return cert, nil
}

// revocations are certificate revocation lists (RFC 5280 section 5) that were
// read at start.
type revocations []*x509.RevocationList

func loadRevocations(files []string) (revocations, error) {
	var lists revocations
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("tls: crl_files: %w", err)
		}
		if block, _ := pem.Decode(data); block != nil {
			data = block.Bytes
		}
		list, err := x509.ParseRevocationList(data)
		if err != nil {
			return nil, fmt.Errorf("tls: crl_files: %s: %w", file, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// check refuses chains with a certificate that its issuer's list revokes, and
// those whose list is out of date. An issuer without a list revokes nothing.
func (r revocations) check(chains [][]*x509.Certificate) error {
	if len(r) == 0 {
		return nil
	}
	err := errors.New("tls: no verified chain to check against crl_files")
	for _, chain := range chains {
		if err = r.checkChain(chain); err == nil {
			return nil
		}
	}
	return err
}

func (r revocations) checkChain(chain []*x509.Certificate) error {
	for i, cert := range chain[:len(chain)-1] {
		issuer := chain[i+1]
		for _, list := range r {
			if list.CheckSignatureFrom(issuer) != nil {
				continue
			}
			if !list.NextUpdate.IsZero() && time.Now().After(list.NextUpdate) {
				return fmt.Errorf("tls: the revocation list of %s was due for renewal on %s", issuer.Subject, list.NextUpdate.Format(time.DateOnly))
			}
			for _, entry := range list.RevokedCertificateEntries {
				if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
					return fmt.Errorf("tls: the certificate of %s is revoked", cert.Subject)
				}
			}
		}
	}
	return nil
}
