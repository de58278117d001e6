-- The part of Prosody's configuration that eventpusher needs, and as much beside it as a server
-- for a try needs. For a real one: certificates, and no plain-text authentication.
plugin_paths = { "/usr/local/lib/prosody/modules" }
modules_enabled = { "roster"; "saslauth"; "tls"; "disco"; "ping"; "offline"; "smacks"; "carbons"; "version"; "admin_shell"; "event_feed" }
event_feed_component = "events.example.org"

authentication = "internal_hashed"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
component_ports = { 5347 }
component_interfaces = { "*" }
log = { info = "*console" }

VirtualHost "example.org"

Component "conference.example.org" "muc"
    modules_enabled = { "event_feed" }

Component "events.example.org"
    component_secret = ENV_COMPONENT_SECRET
    component_conflict_resolve = "kick_old"
