-- A private Prosody on loopback: accounts are files, passwords go over plain
-- TCP, and nothing reaches another machine.
run_as_root = true
daemonize = false
pidfile = "{{.Dir}}/prosody.pid"
data_path = "{{.Dir}}/data"
certificates = "{{.Dir}}/certs"
interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
c2s_ports = { {{.C2SPort}} }
component_ports = { {{.ComponentPort}} }
{{- if .FederationPort}}
s2s_ports = { {{.FederationPort}} }
s2s_require_encryption = false
s2s_secure_auth = false
{{- else}}
s2s_ports = { }
modules_disabled = { "s2s" }
{{- end}}
http_ports = { }
https_ports = { }
authentication = "internal_plain"
storage = "internal"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
log = { { levels = { min = "info" }, to = "file", filename = "{{.Dir}}/prosody.log" } }
{{- if .PluginPaths}}
plugin_paths = { {{range .PluginPaths}}{{printf "%q; " .}}{{end}}}
{{- end}}
{{- if .EventFeed}}
event_feed_component = {{printf "%q" (index .Components 0)}}
{{- end}}
modules_enabled = { {{range .Modules}}{{printf "%q; " .}}{{end}}}
{{- if .Rules}}
firewall_scripts = { {{range .Rules}}{{printf "%q; " .}}{{end}}}
{{- end}}
{{- if .Privilege}}
privileged_entities = { {{range .Components}}[{{printf "%q" .}}] = { presence = "managed_entity", roster = "get", message = "outgoing" }; {{end}}}
{{- end}}
{{.Config}}
{{range .Hosts}}
VirtualHost {{printf "%q" .}}
{{- if $.DelegatePush}}
    -- One table for each host: of one that hosts share, only the first makes use.
    delegations = { ["urn:xmpp:push:0"] = { jid = {{printf "%q" (index $.Components 0)}} } }
{{- end}}
{{- end}}

Component {{printf "%q" .MUC}} "muc"
    restrict_room_creation = false
{{- if .EventFeed}}
    modules_enabled = { "event_feed" }
{{- end}}
{{range .Components}}
Component {{printf "%q" .}}
    component_secret = {{printf "%q" $.Secret}}
    modules_enabled = { {{if $.Privilege}}"privilege"; {{end}}{{if $.DelegatePush}}"delegation"; {{end}}}
{{end}}
Include "conf.d/*.cfg.lua"
