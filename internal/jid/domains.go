package jid

// Domains is a set of domains. The zero value is the empty set; nobody changes a set
// after NewDomains, so that any goroutine may read it.
type Domains struct{ set map[JID]struct{} }

// NewDomains returns the set of these domains, which it prepares.
func NewDomains(names ...string) Domains {
	d := Domains{make(map[JID]struct{}, len(names))}
	for _, name := range names {
		d.set[Prepare(name)] = struct{}{}
	}
	return d
}

// Has reports whether j is one of the domains itself.
func (d Domains) Has(j JID) bool {
	_, ok := d.set[j]
	return ok
}

// Of reports whether j, which may have a localpart and a resource, is an address on one of
// the domains.
func (d Domains) Of(j JID) bool { return d.Has(JID(j.Domain())) }
