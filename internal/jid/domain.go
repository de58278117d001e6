package jid

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// A domain may be written in Unicode (a U-label in each place beyond ASCII) or in ASCII
// (A-labels, "xn--"), in any case, in any normal form and with a final dot; RFC 7622
// section 3.2 makes one of all of them. A server writes one form of each of its domains
// and takes no other. So Prepare keeps apart what a stanza may hold, Unicode and ASCII,
// and a set of configured domains holds both forms of each.

// labels maps and checks labels as IDNA2008 does (UTS #46, without the transitional
// mappings of IDNA2003). Underscores, which hosts inside a network have, pass.
var labels = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

// foldDomain folds the domain of an address in a stanza. ASCII is lower-cased, A-labels
// stay A-labels. A domain that only the compatibility mappings turn into ASCII (fullwidth
// letters) stays as it is, and so does a final dot: servers take such a domain for
// another one, which must not pass for the one that we trust.
func foldDomain(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	folded, err := labels.ToUnicode(s)
	if err != nil {
		folded = strings.ToLower(norm.NFC.String(s))
	}
	if isASCII(folded) {
		return s
	}
	return folded
}

// FoldDomain returns a domain that an operator has written in the form in which Prepare
// returns it, without a final dot. Whatever IDNA refuses in it is the error; the result is
// then folded as far as possible.
func FoldDomain(name string) (JID, error) {
	unicode, ascii, err := bothForms(name)
	if isASCII(name) {
		return ascii, err
	}
	return unicode, err
}

// bothForms returns a domain in Unicode and in ASCII; they are equal if all of it is ASCII.
func bothForms(name string) (unicode, ascii JID, err error) {
	name = strings.ToLower(strings.TrimSuffix(norm.NFC.String(name), "."))
	if isASCII(name) && !strings.HasPrefix(name, acePrefix) && !strings.Contains(name, "."+acePrefix) {
		return JID(name), JID(name), nil
	}
	u, err := labels.ToUnicode(name)
	if err != nil {
		return JID(name), JID(name), err
	}
	a, err := labels.ToASCII(u)
	if err != nil {
		return JID(name), JID(name), err
	}
	return JID(strings.TrimSuffix(u, ".")), JID(strings.TrimSuffix(a, ".")), nil
}

// IDNA2003 returns the domain as servers write it that prepare addresses by stringprep
// (RFC 6122), which maps a few characters to others: straße.example is strasse.example.
func IDNA2003(domain JID) JID {
	if isASCII(string(domain)) {
		return domain
	}
	mapped, err := transitional.ToASCII(string(domain)) // ToUnicode has no such mapping
	if err != nil {
		return domain
	}
	unicode, _, _ := bothForms(mapped)
	return unicode
}

var transitional = idna.New(idna.MapForLookup(), idna.Transitional(true), idna.StrictDomainName(false))

const acePrefix = "xn--" // of an A-label (RFC 5890 section 2.3.2.1)

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
