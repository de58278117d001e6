package jid

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// Domains is a set of domains, which all copies of it share. The zero value is the empty set for
// good. It is safe for concurrent use.
type Domains struct{ set *atomic.Pointer[domains] }

// domains is what a set holds. Nobody changes it.
type domains struct {
	// forms has each form that a server may write, and the one that it was configured in.
	forms map[JID]JID
	// patterns are names with a wildcard; except are those that no pattern stands for.
	patterns, except []pattern
}

// pattern is a domain, of which a label may be a wildcard, in both of its forms.
type pattern [2][]string

func newPattern(name string) pattern {
	unicode, ascii, _ := bothForms(name)
	return pattern{strings.Split(string(unicode), "."), strings.Split(string(ascii), ".")}
}

func (p *pattern) has(labels []string) bool {
	fits := func(form []string) bool {
		return slices.EqualFunc(form, labels, func(own, label string) bool { return own == label || own == wildcard && label != "" })
	}
	return fits(p[0]) || fits(p[1])
}

// wildcard is a label that stands for any one label: *.example.org is a.example.org, and neither
// example.org nor b.a.example.org. exception begins a name that no wildcard stands for.
const wildcard, exception = "*", "!"

// Wild reports whether a name has a wildcard.
func Wild(name string) bool { return slices.Contains(strings.Split(name, "."), wildcard) }

// Except returns the names for NewDomains and Replace with exceptions from their wildcards. Without
// wildcards it returns the names themselves.
func Except(names []string, others ...string) []string {
	if !slices.ContainsFunc(names, Wild) {
		return names
	}
	names = slices.Clone(names)
	for _, name := range others {
		names = append(names, exception+name)
	}
	return names
}

// Named returns the names without a wildcard.
func Named(names []string) []string { return slices.DeleteFunc(slices.Clone(names), Wild) }

// NewDomains returns the set of these domains, in whichever form each is written. A label of a name may
// be a wildcard. See Except.
func NewDomains(names ...string) Domains {
	d := Domains{new(atomic.Pointer[domains])}
	d.Replace(names...)
	return d
}

// Replace makes these the domains of the set and of all its copies. The set is none of value zero.
func (d Domains) Replace(names ...string) {
	next := domains{forms: make(map[JID]JID, len(names))}
	for _, name := range names {
		if except, ok := strings.CutPrefix(name, exception); ok {
			next.except = append(next.except, newPattern(except))
			continue
		}
		if Wild(name) {
			next.patterns = append(next.patterns, newPattern(name))
			continue
		}
		unicode, ascii, _ := bothForms(name) // what IDNA refuses stands for itself
		configured, _ := FoldDomain(name)
		next.forms[unicode], next.forms[ascii] = configured, configured
	}
	d.set.Store(&next)
}

func (d Domains) all() map[JID]JID {
	if d.set == nil {
		return nil
	}
	return d.set.Load().forms
}

// Has reports whether j is one of the domains itself.
func (d Domains) Has(j JID) bool {
	if d.set == nil {
		return false
	}
	now := d.set.Load()
	if _, ok := now.forms[j]; ok || len(now.patterns) == 0 {
		return ok
	}
	return now.fits(string(j))
}

// fits reports whether a wildcard stands for the domain.
func (d *domains) fits(name string) bool {
	if strings.ContainsAny(name, "@/") {
		return false
	}
	labels := strings.Split(name, ".")
	has := func(p pattern) bool { return p.has(labels) }
	return slices.ContainsFunc(d.patterns, has) && !slices.ContainsFunc(d.except, has)
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
// that Configured returns for it, in any order. What a wildcard stands for is not among them.
func (d Domains) Forms() iter.Seq2[JID, JID] { return maps.All(d.all()) }
