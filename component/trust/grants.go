package trust

import (
	"encoding/xml"
	"slices"
	"strings"
	"sync"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// grants are the permissions that hosts have given on this connection, for the status.
// It is safe for concurrent use.
type grants struct {
	mu         sync.Mutex
	privileges map[jid.JID][]string
	delegated  map[jid.JID][]string
}

// maxGrants bounds what is kept of one host.
const maxGrants = 32

func (g *grants) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.privileges, g.delegated = make(map[jid.JID][]string), make(map[jid.JID][]string)
}

// privilege takes an advertisement of XEP-0356, which replaces the one before.
func (g *grants) privilege(host jid.JID, p *stanza.Privileges) {
	var list []string
	for _, perm := range p.Permissions[:min(maxGrants, len(p.Permissions))] {
		if perm.Type != "none" {
			list = append(list, strings.TrimSpace(perm.Access+" "+perm.Type))
		}
	}
	slices.Sort(list)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.privileges[host] = list
}

// delegate takes note of a delegated namespace (XEP-0355).
func (g *grants) delegate(host jid.JID, namespace string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if list := g.delegated[host]; !slices.Contains(list, namespace) && len(list) < maxGrants {
		g.delegated[host] = append(list, namespace)
	}
}

// fill adds the grants to the status of their hosts.
func (g *grants) fill(hosts []HostStatus) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range hosts {
		host := jid.JID(hosts[i].Host)
		hosts[i].Privileges, hosts[i].Delegated = slices.Clone(g.privileges[host]), slices.Clone(g.delegated[host])
	}
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
	for _, d := range message.Delegations {
		if !strings.HasPrefix(d.XMLName.Space, "urn:xmpp:delegation:") {
			continue
		}
		for _, namespace := range d.Delegated {
			j.grants.delegate(j.hosts.Configured(s.From), strings.Clone(namespace.Namespace))
		}
	}
}
