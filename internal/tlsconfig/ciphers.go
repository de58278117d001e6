package tlsconfig

import (
	"crypto/tls"
	"fmt"
	"strings"
)

// openSSLNames are the names that OpenSSL and MongooseIM give to the TLS 1.2
// suites of crypto/tls.
var openSSLNames = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	"ECDHE-ECDSA-AES128-SHA256":     tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
	"ECDHE-RSA-AES128-SHA256":       tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
	"AES128-GCM-SHA256":             tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	"AES256-GCM-SHA384":             tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	"AES128-SHA":                    tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	"AES256-SHA":                    tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	"AES128-SHA256":                 tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
}

// setCiphers limits the suites to those of list that crypto/tls knows, by
// OpenSSL or IANA name. The suites of TLS 1.3 cannot be chosen in Go; a list of
// nothing else means TLS 1.3 alone. Names that Go does not know are passed over,
// since suites that weak are never offered.
func setCiphers(cfg *tls.Config, list string) error {
	var chosen []uint16
	modern := false
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ':' || r == ',' || r == ' ' }) {
		id, known := openSSLNames[name]
		if !known {
			id, known = ianaSuite(name)
		}
		switch {
		case !known:
		case isTLS13(id):
			modern = true
		default:
			chosen = append(chosen, id)
		}
	}
	switch {
	case len(chosen) > 0:
		cfg.CipherSuites = chosen
	case modern && cfg.MaxVersion != 0 && cfg.MaxVersion < tls.VersionTLS13:
		return fmt.Errorf("tls: ciphers %q are of TLS 1.3 only, which versions excludes", list)
	case modern:
		cfg.MinVersion = tls.VersionTLS13
	default:
		return fmt.Errorf("tls: ciphers %q names no suite that Go implements; leave it out, or name some like ECDHE-RSA-AES128-GCM-SHA256", list)
	}
	return nil
}

func ianaSuite(name string) (uint16, bool) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.Name == name {
			return s.ID, true
		}
	}
	return 0, false
}

// isTLS13 knows them by their number: RFC 8446 appendix B.4.
func isTLS13(id uint16) bool { return id>>8 == 0x13 }

var versionNames = map[string]uint16{
	"tlsv1": tls.VersionTLS10, "tlsv1.1": tls.VersionTLS11, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13,
}

// versions returns the least and the greatest of the named versions; Go speaks
// every version between. Without names it is TLS 1.2 and whatever is newer.
func versions(names []string) (least, greatest uint16, err error) {
	if len(names) == 0 {
		return tls.VersionTLS12, 0, nil
	}
	have := make(map[uint16]bool)
	for _, name := range names {
		v, ok := versionNames[name]
		if !ok {
			return 0, 0, fmt.Errorf("tls: version %q is none of tlsv1, tlsv1.1, tlsv1.2, tlsv1.3", name)
		}
		have[v] = true
		if least == 0 || v < least {
			least = v
		}
		greatest = max(greatest, v)
	}
	for v := least; v <= greatest; v++ {
		if !have[v] {
			return 0, 0, fmt.Errorf("tls: versions %v leave out %s, but can only be a range without gaps", names, tls.VersionName(v))
		}
	}
	return least, greatest, nil
}
