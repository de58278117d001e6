package jid

import (
	"iter"
	"maps"
	"strings"
	"sync/atomic"
)

// Domains is a set of domains, which all copies of it share. The zero value is the empty set for
// good. It is safe for concurrent use.
type Domains struct {
	// forms has each form that a server may write, and the one that it was configured in.
	// Nobody changes a map.
	forms *atomic.Pointer[map[JID]JID]
}

// NewDomains returns the set of these domains, in whichever form each is written.
func NewDomains(names ...string) Domains {
	d := Domains{new(atomic.Pointer[map[JID]JID])}
	d.Replace(names...)
	return d
}

// Replace makes these the domains of the set and of all its copies. The set is none of value zero.
func (d Domains) Replace(names ...string) {
	forms := make(map[JID]JID, len(names))
	for _, name := range names {
		unicode, ascii, _ := bothForms(name) // what IDNA refuses stands for itself
		configured, _ := FoldDomain(name)
		forms[unicode], forms[ascii] = configured, configured
	}
	d.forms.Store(&forms)
}

func (d Domains) all() map[JID]JID {
	if d.forms == nil {
		return nil
	}
	return *d.forms.Load()
}

// Has reports whether j is one of the domains itself.
func (d Domains) Has(j JID) bool {
	_, ok := d.all()[j]
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
	if configured, ok := d.all()[j]; ok {
		return configured
	}
	return j
}

// Forms returns every form in which a server may write one of the domains, with the one
// that Configured returns for it, in any order.
func (d Domains) Forms() iter.Seq2[JID, JID] { return maps.All(d.all()) }
