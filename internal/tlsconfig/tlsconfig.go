// Package tlsconfig turns MongooseIM's client TLS options (just_tls) into a
// crypto/tls configuration, in one place for every outgoing connection.
package tlsconfig

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"eventpusher/config"
)

// noSNI as server name keeps the name out of the handshake: RFC 6066 section 3
// permits no literal addresses in it, so crypto/tls sends none. An empty name
// would not do, since net/http and AMQP clients fill it in.
const noSNI = "0.0.0.0"

// Client returns the configuration for connecting to serverName, a host name or
// an address without port, with the options t; nil means the defaults: TLS 1.2
// or later, the system's authorities, certificate and name checked.
//
// All files are read now. Certificates are checked as verify_mode says: "peer"
// by authority and name; "selfsigned_peer" the same, but a self-signed one that
// is valid and bears the name will do; "none" not at all. Other than in
// MongooseIM, switching SNI off leaves the check of the name on.
func Client(t *config.TLS, serverName string) (*tls.Config, error) {
	if t == nil {
		t = &config.TLS{}
	}
	if t.ServerName != "" {
		serverName = t.ServerName
	}
	cfg := &tls.Config{ServerName: serverName}
	var err error
	if cfg.MinVersion, cfg.MaxVersion, err = versions(t.Versions); err != nil {
		return nil, err
	}
	if t.Ciphers != "" {
		if err := setCiphers(cfg, t.Ciphers); err != nil {
			return nil, err
		}
	}
	if t.CACertFile != "" {
		if cfg.RootCAs, err = loadPool(t.CACertFile); err != nil {
			return nil, err
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		cert, err := loadCertificate(t)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	revoked, err := loadRevocations(t.CRLFiles)
	if err != nil {
		return nil, err
	}
	if err := setVerification(cfg, t, serverName, revoked); err != nil {
		return nil, err
	}
	return cfg, nil
}

// setVerification makes the connection check its peer. Where crypto/tls cannot
// do what is asked, its own check is off and check does all of it.
func setVerification(cfg *tls.Config, t *config.TLS, serverName string, revoked revocations) error {
	check := &verifier{roots: cfg.RootCAs, name: serverName, revoked: revoked}
	switch t.VerifyMode {
	case "", "peer":
		if t.DisableSNI {
			cfg.InsecureSkipVerify = true
			cfg.VerifyConnection = check.connection
		} else if len(revoked) > 0 {
			cfg.VerifyConnection = func(s tls.ConnectionState) error { return revoked.check(s.VerifiedChains) }
		}
	case "selfsigned_peer":
		check.selfSigned = true
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = check.connection
	case "none":
		cfg.InsecureSkipVerify = true
	default:
		return fmt.Errorf("tls: verify_mode %q is none of peer, selfsigned_peer, none", t.VerifyMode)
	}
	if t.DisableSNI {
		cfg.ServerName = noSNI
	}
	return nil
}

// verifier checks a peer's certificates in the place of crypto/tls.
type verifier struct {
	roots      *x509.CertPool // nil: the system's
	name       string
	selfSigned bool // a self-signed certificate of that name will do
	revoked    revocations
}

// connection is a tls.Config.VerifyConnection; it also runs for resumed sessions.
func (v *verifier) connection(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("tls: the server sent no certificate")
	}
	leaf := s.PeerCertificates[0]
	opts := x509.VerifyOptions{Roots: v.roots, DNSName: v.name, Intermediates: x509.NewCertPool()}
	if v.selfSigned && leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
		// The certificate vouches for itself; validity, usage and name still count.
		opts.Roots = x509.NewCertPool()
		opts.Roots.AddCert(leaf)
	}
	for _, cert := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	return v.revoked.check(chains)
}

func loadPool(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls: cacertfile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("tls: cacertfile %s: %w", file, unusable(data))
	}
	return pool, nil
}

// unusable says why none of the certificates in data can be used.
func unusable(data []byte) error {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
	}
	return errors.New("holds no certificate in PEM form (a file in DER form is converted by: openssl x509 -inform der)")
}
