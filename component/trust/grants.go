package trust

import (
	"encoding/xml"
	"slices"
	"strings"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// maxGrants bounds what is kept of one host for the status.
const maxGrants = 32

// privileges takes note of an advertisement of XEP-0356, which replaces the one before.
// Only a served host that is also a forwarder can grant, in a message from its bare domain.
func (j *Judge) privileges(env *stanza.Envelope, now time.Time) {
	outer := &env.Outer
	switch {
	case outer.Kind != stanza.Message || !j.forwarders.Has(outer.From) || !j.hosts.Has(outer.From) || outer.To != j.name:
		j.metrics.count(Privilege, untrustedPriv)
		j.complain(untrustedPriv, Privilege, outer.From, now)
		return
	case outer.Type == "error":
		j.metrics.count(Privilege, errorStanza)
		return
	}
	j.metrics.count(Privilege, Trusted)
	var list []string
	presence := false
	for _, perm := range env.Privilege.Permissions {
		// The presence of all sessions comes with managed_entity, or roster, which includes
		// it (XEP-0356 section 7).
		presence = presence || perm.Access == "presence" && (perm.Type == "managed_entity" || perm.Type == "roster")
		if perm.Type != "none" && len(list) < maxGrants {
			list = append(list, strings.TrimSpace(perm.Access+" "+perm.Type))
		}
	}
	slices.Sort(list)
	h := j.byHost[outer.From]
	if presence != h.presence {
		j.log.Info("component: the host's privileges changed", "host", string(outer.From), "presence", presence)
	}
	j.authorities.mu.Lock()
	defer j.authorities.mu.Unlock()
	h.presence, h.privileges = presence, list
}

// Granted reports whether the host has granted the presence of its sessions on this
// connection (XEP-0356). It belongs to the goroutine that judges.
func (j *Judge) Granted(host jid.JID) bool {
	h := j.byHost[host]
	return h != nil && h.presence
}

// Delegations takes note of what a served host says to have delegated to the
// component. Only the status depends on it; whoever handles a delegated IQ looks at
// who sent it.
func (j *Judge) Delegations(s *stanza.Stanza, forward stanza.ForwardState) {
	if s.Kind != stanza.Message || forward != stanza.NotForwarded || !j.hosts.Has(s.From) || s.To != j.name ||
		s.Type == "error" || !strings.Contains(s.Raw, "urn:xmpp:delegation:") {
		return
	}
	var message struct {
		Delegations []struct {
			XMLName   xml.Name
			Delegated []struct {
				Namespace string `xml:"namespace,attr"`
			} `xml:"delegated"`
		} `xml:"delegation"`
	}
	if xml.Unmarshal([]byte(s.Raw), &message) != nil {
		return
	}
	h := j.byHost[s.From]
	j.authorities.mu.Lock()
	defer j.authorities.mu.Unlock()
	for _, d := range message.Delegations {
		if !strings.HasPrefix(d.XMLName.Space, "urn:xmpp:delegation:") {
			continue
		}
		for _, n := range d.Delegated {
			if !slices.Contains(h.delegated, n.Namespace) && len(h.delegated) < maxGrants {
				h.delegated = append(h.delegated, strings.Clone(n.Namespace))
			}
		}
	}
}
