// Package jid handles XMPP addresses (RFC 7622) as plain strings.
//
// A feed hands over tens of thousands of addresses a second, almost all of them
// lower-case ASCII, so an address is a string that shares the memory of the
// stanza it came in; only what needs preparation is copied.
// Preparation never fails: servers built on stringprep (RFC 6122) emit addresses
// that PRECIS refuses, and an odd address must not cost anybody an event.
package jid

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
)

// JID is a prepared address: localpart and domainpart are case-folded, the
// resourcepart keeps its case, as in MongooseIM.
// The zero value is the absent address.
type JID string

// Prepare returns raw with its localpart and domainpart case-folded.
// Lower-case ASCII is returned as it is, without copying.
// An address that RFC 7622 section 3 would refuse is folded as far as possible
// and otherwise kept; Prepare never fails. A final dot of the domain is kept as well:
// servers take example.org. for another domain than example.org.
func Prepare(raw string) JID {
	if isPrepared(raw) {
		return JID(raw)
	}
	bare, resource, hasResource := strings.Cut(raw, "/")
	local, domain, hasLocal := strings.Cut(bare, "@")
	if !hasLocal {
		local, domain = "", bare
	}
	var b strings.Builder
	b.Grow(len(raw))
	if hasLocal {
		b.WriteString(foldLocal(local))
		b.WriteByte('@')
	}
	b.WriteString(foldDomain(domain))
	if hasResource {
		b.WriteByte('/')
		b.WriteString(resource)
	}
	return JID(b.String())
}

// isPrepared reports whether Prepare has nothing to do: no upper case and no
// byte beyond ASCII before the resource.
func isPrepared(raw string) bool {
	for i := range len(raw) {
		c := raw[i]
		if c == '/' {
			break
		}
		if c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

func foldLocal(s string) string {
	if out, err := precis.UsernameCaseMapped.String(s); err == nil {
		return out
	}
	return strings.ToLower(s)
}

// Local returns the localpart, empty for a domain.
func (j JID) Local() string {
	bare := j.Bare()
	if i := strings.IndexByte(string(bare), '@'); i >= 0 {
		return string(bare[:i])
	}
	return ""
}

// Domain returns the domainpart.
func (j JID) Domain() string {
	bare := j.Bare()
	if i := strings.IndexByte(string(bare), '@'); i >= 0 {
		return string(bare[i+1:])
	}
	return string(bare)
}

// Resource returns the resourcepart, empty for a bare JID.
func (j JID) Resource() string {
	if i := strings.IndexByte(string(j), '/'); i >= 0 {
		return string(j[i+1:])
	}
	return ""
}

// Bare returns the address without its resource.
// RFC 7622 section 3.2: the first slash starts the resource.
func (j JID) Bare() JID {
	if i := strings.IndexByte(string(j), '/'); i >= 0 {
		return j[:i]
	}
	return j
}

// IsBare reports whether the address has no resource.
func (j JID) IsBare() bool { return strings.IndexByte(string(j), '/') < 0 }

// String returns the address as it is written in a stanza.
func (j JID) String() string { return string(j) }
