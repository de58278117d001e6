-- What happens on a virtual host. Each hook stands where the outcome is sure:
-- behind what may still refuse the stanza, before what delivers it.

local user_exists = require "core.usermanager".user_exists;
local s_find, s_match, s_format = string.find, string.match, string.format;
local ipairs, setmetatable, type = ipairs, setmetatable, type;

local bare_sessions = prosody.bare_sessions;

return function (lib)
	local Feed, escape = lib.Feed, lib.escape;

	-- Whether a JID is a user's (not a host's, not a room's) of our hosts. A user's
	-- own stanzas are reported when they are sent.
	function Feed:is_user(jid)
		local host = jid and s_match(jid, "^[^@/]+@([^/]+)");
		return host and self.hosts[host] == "local";
	end

	-- Messages in a session's queue that are no messages to the user in their own
	-- right: carbons, results of an archive, and stored ones that were handed
	-- over, which the host has stamped.
	local function is_copy(stanza, host)
		for _, tag in ipairs(stanza.tags) do
			local name, xmlns = tag.name, tag.attr.xmlns;
			if xmlns == "urn:xmpp:carbons:2" and (name == "received" or name == "sent")
			or name == "result" and xmlns and s_find(xmlns, "urn:xmpp:mam:", 1, true) == 1
			or name == "delay" and xmlns == "urn:xmpp:delay" and tag.attr.from == host then
				return true;
			end
		end
		return false;
	end

	local function is_unacked_message(stanza, host)
		return stanza.name == "message" and stanza.attr.type ~= "error" and not is_copy(stanza, host);
	end

	-- A host's hooks see an event as it is passed to them, and return nothing:
	-- the stanza goes on. Feed:guard keeps our errors from the others.
	return function (host_module, feed)
		local host = host_module.host;

		local function user_attribute(jid)
			return " user='"..escape(jid).."'";
		end

		local function hook(name, priority, f)
			host_module:hook(name, function (event)
				feed:guard(name, f, event);
			end, priority);
		end

		local function message_sent(event)
			local attr, sender = event.stanza.attr, event.origin.full_jid;
			if attr.type == "error" or not sender then
				return;
			end
			-- Prosody takes away an address that is the sender's own account.
			local to = attr.to or s_match(sender, "^[^/]*");
			feed:emit(host, "message-sent", " user='"..escape(sender).."' to='"..escape(to).."'", event.stanza);
		end

		local function message_received(event)
			local attr = event.stanza.attr;
			local to = attr.to;
			if attr.type == "error" or not to or feed:is_user(attr.from) then
				return;
			end
			local bare = s_match(to, "^[^/]*");
			if not bare_sessions[bare] and not user_exists(s_match(bare, "^[^@]*"), host) then
				return; -- is about to be refused
			end
			feed:emit(host, "message-received", " user='"..escape(to).."' to='"..escape(to).."'", event.stanza);
		end

		-- -20: after blocking, archives, carbons and firewalls. Between carbons (-0.5)
		-- and delivery (-1), which ends the chain, there is only -0.9.
		for _, address in ipairs { "bare", "full", "host" } do
			hook("pre-message/"..address, -20, message_sent);
		end
		hook("message/bare", -0.9, message_received);
		hook("message/full", -0.9, message_received);

		-- Whoever stores the message returns true, so the wrapper knows.
		host_module:wrap_event("message/offline/handle", function (handlers, name, event)
			local stored = handlers(name, event);
			if stored then
				feed:guard(name, function ()
					feed:emit(host, "message-offline", user_attribute(event.username.."@"..host), event.stanza);
				end);
			end
			return stored;
		end);

		-- The user's own broadcast, just before mod_presence (0) acts on it. That one
		-- also gets the presence that ends a session, however it ends.
		hook("presence/bare", 0.1, function (event)
			local origin, stanza = event.origin, event.stanza;
			local kind = stanza.attr.type;
			if stanza.attr.to or not origin.full_jid then
				return;
			elseif kind == nil then
				feed:emit(host, origin.presence and "presence" or "online", user_attribute(origin.full_jid), stanza);
			elseif kind == "unavailable" and origin.presence then
				feed:emit(host, "offline", user_attribute(origin.full_jid), stanza);
			end
		end);

		hook("resource-bind", 0, function (event)
			feed:emit(host, "session-start", user_attribute(event.session.full_jid));
		end);
		-- -10: after mod_presence (0) has sent the unavailable presence.
		hook("resource-unbind", -10, function (event)
			local reason = type(event.error) == "string" and " reason='"..escape(event.error).."'" or "";
			feed:emit(host, "session-end", user_attribute(event.session.full_jid)..reason);
		end);

		-- -10: after mod_c2s (200) has begun to close the account's sessions. Of a command
		-- in a process of its own, such as Prosody 0.12's prosodyctl deluser, nothing is heard.
		host_module:hook_global("user-deleted", function (event)
			if event.host == host then
				feed:guard("user-deleted", feed.emit, feed, host, "account-removed", user_attribute(event.username.."@"..host));
			end
		end, -10);

		-- A queued message stays the same table until it is acknowledged, also over
		-- a resumption, so it is known which ones have been reported.
		local reported = setmetatable({}, { __mode = "k" });
		local function unacked(user, stanza)
			if not reported[stanza] then
				reported[stanza] = true;
				feed:emit(host, "message-unacked", user, stanza);
			end
		end
		local function unacked_messages(queue)
			local messages = {};
			for _, stanza in ipairs(queue or {}) do
				if is_unacked_message(stanza, host) then
					messages[#messages + 1] = stanza;
				end
			end
			return messages;
		end

		hook("smacks-hibernation-start", 0, function (event)
			local session = event.origin;
			if not session.full_jid then
				return; -- between servers
			end
			local user, messages = user_attribute(session.full_jid), unacked_messages(event.queue);
			feed:emit(host, "hibernate", user..s_format(" unacked='%d'", #messages));
			for _, stanza in ipairs(messages) do
				unacked(user, stanza);
			end
		end);
		hook("smacks-hibernation-stanza-queued", 0, function (event)
			if event.origin.full_jid and is_unacked_message(event.stanza, host) then
				unacked(user_attribute(event.origin.full_jid), event.stanza);
			end
		end);
		hook("smacks-hibernation-end", 0, function (event)
			local user = user_attribute(event.resumed.full_jid);
			feed:emit(host, "resumed", user..s_format(" unacked='%d'", #unacked_messages(event.queue)));
		end);
		-- 10: before mod_smacks (0) has the message stored.
		hook("delivery/failure", 10, function (event)
			if event.session.full_jid and is_unacked_message(event.stanza, host) then
				feed:emit(host, "message-failed", user_attribute(event.session.full_jid), event.stanza);
			end
		end);
	end;
end
