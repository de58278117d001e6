-- For tests only: lets a user reach into the server by IQ. IQs make no events.
--	<do xmlns='urn:test:probe' what='reload'/>

local modulemanager = require "core.modulemanager";
local st = require "util.stanza";

local actions = {};

function actions.reload()
	assert(modulemanager.reload("*", "event_feed"));
	for _, host in ipairs { module.host, "conference.localhost" } do
		assert(modulemanager.reload(host, "event_feed"));
	end
end

-- Only the global part, so that the hosts keep the hooks of the old code.
function actions.reload_global()
	assert(modulemanager.reload("*", "event_feed"));
end

-- Lets the session of that full JID hibernate no longer.
function actions.expire(attr)
	local watchdog = prosody.full_sessions[attr.jid].hibernating_watchdog;
	watchdog:cancel();
	watchdog.callback(watchdog);
end

-- As prosodyctl shell and everybody else who removes an account.
function actions.delete_user(attr)
	assert(require "core.usermanager".delete_user(attr.user, attr.host));
end

-- What a server tells its modules when an account is disabled; the harness' way to
-- keep accounts cannot do so.
function actions.disable_user(attr)
	prosody.events.fire_event("user-disabled", { username = attr.user, host = attr.host });
end

-- What a session goes through that resumes, acknowledges nothing, and drops.
function actions.hibernate_again(attr)
	local session = prosody.full_sessions[attr.jid];
	module:fire_event("smacks-hibernation-start", { origin = session, queue = session.outgoing_stanza_queue:table() });
end

-- A session that is not there any more when Prosody stops, and was never ended.
function actions.leave()
	local session = { full_jid = "ghost@"..module.host.."/bosh", host = module.host, presence = st.presence() };
	prosody.hosts[module.host].sessions.ghost = { sessions = { bosh = session } };
end

-- Questions: an error is no.
function actions.gone(attr)
	assert(not prosody.full_sessions[attr.jid]);
end
function actions.hibernates(attr)
	assert(prosody.full_sessions[attr.jid].hibernating);
end

-- Counts how often the store of accounts is asked, second by second.
local second, lookups, most_lookups = 0, 0, 0;
function actions.count_lookups()
	local users = prosody.hosts[module.host].users;
	local user_exists = users.user_exists;
	function users.user_exists(username)
		local now = os.time();
		lookups = now == second and lookups + 1 or 1;
		second, most_lookups = now, math.max(most_lookups, lookups);
		return user_exists(username);
	end
end
function actions.few_lookups(attr)
	assert(most_lookups > 1 and most_lookups <= tonumber(attr.most), most_lookups);
end

function actions.statistics()
	local events = 0;
	local statsmanager = require "core.statsmanager";
	statsmanager.collect();
	for name, family in pairs(statsmanager.get_metric_registry():get_metric_families()) do
		if name:find("event_feed/events", 1, true) then
			for _, metric in family:iter_metrics() do
				for _, _, value in metric:iter_samples() do
					events = value;
				end
			end
		end
	end
	assert(events > 50, "no figures");
end

-- Whether nothing of that kind was counted since the start: errors of hooks, or control
-- messages that were ignored.
function actions.none(attr)
	assert(modulemanager.get_module("*", "event_feed").module.environment.module.save().feed.counts[attr.kind] == 0);
end

-- A control message that comes from the host itself.
function actions.forge(attr)
	local control = { xmlns = "urn:eventpusher:feed:1", source = attr.source, epoch = attr.epoch, seq = attr.seq };
	module:send(st.message({ from = attr.from or module.host, to = module.host }):tag(attr.name, control));
end

-- The message in a request, as modules make it: without a namespace.
local function message_in(tag)
	local function without_namespace(element)
		if element.attr.xmlns == "jabber:client" then
			element.attr.xmlns = nil;
		end
		for child in element:childtags() do
			without_namespace(child);
		end
		return element;
	end
	return without_namespace(st.clone(tag.tags[1]));
end

-- What a module sends in the name of a user or of the host, as mod_post_msg does.
function actions.send(_, tag)
	module:send(message_in(tag));
end

-- As mod_rest: with a session made up for the request, and the hooks of a session's message.
function actions.rest(_, tag)
	local stanza = message_in(tag);
	local origin = { username = stanza.attr.from:match("^[^@]+"), host = module.host, full_jid = stanza.attr.from, type = "c2s" };
	function origin.send() return true; end
	local where = not stanza.attr.to:find("@", 1, true) and "host" or stanza.attr.to:find("/", 1, true) and "full" or "bare";
	if not module:fire_event("pre-message/"..where, { origin = origin, stanza = stanza }) then
		module:send(stanza, origin);
	end
end

module:hook("iq-set/host/urn:test:probe:do", function (event)
	local tag = event.stanza.tags[1];
	local ok, err = pcall(actions[tag.attr.what], tag.attr, tag);
	if ok then
		event.origin.send(st.reply(event.stanza));
	else
		event.origin.send(st.error_reply(event.stanza, "cancel", "internal-server-error", tostring(err)));
	end
	return true;
end);

-- Between servers mod_smacks manages streams only if the features come after the
-- authentication, as with TLS; the tests' servers have dialback.
module:hook("s2sout-established", function (event)
	event.session.smacks_feature = st.stanza("sm", { xmlns = "urn:xmpp:sm:3" });
end, 10);

-- A message with the body "unspeakable" cannot be serialised while mod_event_feed
-- looks at it (-0.9), and is whole again afterwards.
local function spoil(event)
	local stanza = event.stanza;
	if stanza:get_child_text("body") == "unspeakable" then
		stanza[#stanza + 1] = 42;
	end
end
local function mend(event)
	local stanza = event.stanza;
	if stanza[#stanza] == 42 then
		stanza[#stanza] = nil;
	end
end
for _, address in ipairs { "bare", "full" } do
	module:hook("message/"..address, spoil, -0.89);
	module:hook("message/"..address, mend, -0.91);
end
