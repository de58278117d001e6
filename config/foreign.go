package config

import (
	"fmt"
	"slices"
	"strings"
)

// What MongooseIM 6.8 knows beside what is ours: these are ignored, anything else
// is a mistake.
var (
	foreignSections = []string{
		"listen", "auth", "internal_databases", "services", "shaper", "acl", "access", "s2s", "instrumentation",
	}
	foreignPools = []string{"redis", "ldap", "elastic", "cassandra", "riak", "generic"}
)

const pusherPrefix = "mod_event_pusher"

// foreignSection judges a top-level key that is not ours.
func (c *checker) foreignSection(at keyPath, known tableFields, name string, _ any) {
	switch {
	case slices.Contains(foreignSections, name):
		c.ignored = append(c.ignored, name)
	case name == "host_config":
		c.errorf(name, "settings for one host are not supported, and to ignore them would route its events wrongly",
			"run one eventpusher for each host that differs, or tell hosts apart in [[filter]] with event.user")
	default:
		c.unknownKey(at, known, name)
	}
}

// foreignGeneral judges a key of [general]: all but hosts are MongooseIM's.
func (c *checker) foreignGeneral(_ keyPath, _ tableFields, name string, _ any) {
	c.ignoredGeneral = append(c.ignoredGeneral, keyPath{name}.String())
}

// foreignModule judges [modules.NAME]. MongooseIM starts filters and backends of
// the operator's own this way, so what looks like a part of the pusher is an error.
func (c *checker) foreignModule(at keyPath, _ tableFields, name string, v any) {
	path := at.with(name).String()
	suffix, ours := strings.CutPrefix(name, pusherPrefix+"_")
	switch {
	case ours && slices.Contains([]string{"sns", "http", "rabbit", "push"}, suffix):
		c.errorf(path, "is not where MongooseIM reads its options from",
			"write ["+at.with(pusherPrefix).with(suffix).String()+tableBelow(v)+"], with a dot")
	case ours && suffix == "hook_translator":
		c.errorf(path, "is a part of mod_event_pusher that is always on", "remove the section")
	case ours:
		c.errorf(path, "is Erlang code, which cannot run here, and to ignore it would let events through that it holds back",
			"remove the section and write its rule as [[filter]]")
	default:
		own := []string{pusherPrefix, "mod_push_service_mongoosepush"}
		if near := nearest(name, own); near != "" && distance(name, near, 3) < 3 {
			c.errorf(path, "unknown module", "did you mean "+at.with(near).String()+"?")
			return
		}
		c.ignored = append(c.ignored, path)
	}
}

// tableBelow names the first sub-table of a section, to show where it belongs.
func tableBelow(v any) string {
	entries, _ := v.(map[string]any)
	for _, name := range []string{"presence_exchange", "chat_msg_exchange", "groupchat_msg_exchange"} {
		if _, ok := entries[name]; ok {
			return "." + name
		}
	}
	return ""
}

// foreignPool judges [outgoing_pools.TYPE].
func (c *checker) foreignPool(at keyPath, _ tableFields, name string, _ any) {
	path := at.with(name).String()
	if slices.Contains(foreignPools, name) {
		c.ignored = append(c.ignored, path)
		return
	}
	own := []string{"http", "rabbit", "rdbms"}
	remedy := "types used here: " + strings.Join(own, ", ")
	if near := nearest(name, own); near != "" {
		remedy = "did you mean " + at.with(near).String() + "?"
	}
	c.errorf(path, "unknown type of pool", remedy)
}

// foreignTag judges a rabbit or rdbms pool under another tag than the one that
// mod_event_pusher uses.
func (c *checker) foreignTag(at keyPath, _ tableFields, name string, _ any) {
	c.ignored = append(c.ignored, at.with(name).String())
}

// noteIgnored says once what of the file means nothing here.
func (c *checker) noteIgnored() {
	if len(c.ignored) > 0 {
		slices.Sort(c.ignored)
		c.note("", "ignored: "+strings.Join(c.ignored, ", ")+" (sections of MongooseIM that mean nothing here)")
	}
	if len(c.ignoredGeneral) > 0 {
		slices.Sort(c.ignoredGeneral)
		c.note("general", "ignored: "+strings.Join(c.ignoredGeneral, ", ")+" (only hosts means something here)")
	}
}

// oldPusherKeys are the forms of MongooseIM before 5.1.
func oldPusherKeys() map[string]string {
	return map[string]string{
		"backend":  "this is the form before MongooseIM 5.1: write [modules.mod_event_pusher.sns], .http, .rabbit or .push directly",
		"backends": "this is the form before MongooseIM 4.0: write [modules.mod_event_pusher.sns], .http, .rabbit or .push, one section each",
	}
}

// oldRabbitKeys are the names that the pool's keys had before MongooseIM 5.1.
func oldRabbitKeys() map[string]string {
	remedies := make(map[string]string)
	for _, name := range []string{"host", "port", "username", "password", "virtual_host"} {
		remedies["amqp_"+name] = "the prefix amqp_ is gone since MongooseIM 5.1: write " + name
	}
	return remedies
}

func quote(s string) string { return fmt.Sprintf("%q", clip(s)) }
