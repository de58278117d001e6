package jid

import (
	"iter"
	"maps"
	"strings"
)

// Domains is a set of domains. The zero value is the empty set; nobody changes a set
// after NewDomains, so that any goroutine may read it.
type Domains struct {
	forms map[JID]JID // each form that a server may write, and the one that it was configured in
}

// NewDomains returns the set of these domains, in whichever form each is written.
func NewDomains(names ...string) Domains {
	d := Domains{make(map[JID]JID, len(names))}
	for _, name := range names {
		unicode, ascii, _ := bothForms(name) // what IDNA refuses stands for itself
		configured, _ := FoldDomain(name)
		d.forms[unicode], d.forms[ascii] = configured, configured
	}
	return d
}

// Has reports whether j is one of the domains itself.
func (d Domains) Has(j JID) bool {
	_, ok := d.forms[j]
	return ok
}

// Of reports whether j, which may have a localpart and a resource, is an address on one of
// the domains.
func (d Domains) Of(j JID) bool { return d.Has(JID(j.Domain())) }

// Over reports whether j is an address on one of the domains or below one, as the services of
// a server are: pubsub.example.org is below example.org.
func (d Domains) Over(j JID) bool {
	for domain, more := j.Domain(), true; more; _, domain, more = strings.Cut(domain, ".") {
		if d.Has(JID(domain)) {
			return true
		}
	}
	return false
}

// Configured returns the domain j in the form that NewDomains was given, folded. A domain
// that is not in the set is returned as it is.
func (d Domains) Configured(j JID) JID {
	if configured, ok := d.forms[j]; ok {
		return configured
	}
	return j
}

// Forms returns every form in which a server may write one of the domains, with the one
// that Configured returns for it, in any order.
func (d Domains) Forms() iter.Seq2[JID, JID] { return maps.All(d.forms) }
