-- Sessions, presence and accounts of a virtual host, and what a session that has lost
-- its connection misses (XEP-0198). Each hook stands where the outcome is sure.

local s_find, s_format = string.find, string.format;
local ipairs, setmetatable, type = ipairs, setmetatable, type;

return function (lib)
	local escape = lib.escape;

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

	-- A host's hooks see an event as it is passed to them, and return nothing:
	-- the stanza goes on. Feed:guard keeps our errors from the others.
	return function (host_module, feed)
		local host = host_module.host;

		local function is_unacked_message(stanza)
			return stanza.name == "message" and stanza.attr.type ~= "error" and not is_copy(stanza, host)
				and not feed:is_notification(stanza);
		end

		local function user_attribute(jid)
			return " user='"..escape(jid).."'";
		end

		local function hook(name, priority, f)
			host_module:hook(name, function (event)
				feed:guard(name, f, event);
			end, priority);
		end

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

		-- 0: before mod_blocklist (-1), which lets nobody else know.
		for _, verb in ipairs { "block", "unblock" } do
			hook("iq-set/self/urn:xmpp:blocking:"..verb, 0, function (event)
				feed:forget_blocks(event.origin.username.."@"..host);
			end);
		end

		-- A queued message stays the same table until it is acknowledged, also over
		-- a resumption, so it is known which ones have been reported.
		local reported = setmetatable({}, { __mode = "k" });
		local function unacked(session, stanza)
			if not reported[stanza] then
				reported[stanza] = true;
				local contact = feed:contact(session.username.."@"..host, stanza);
				feed:emit(host, "message-unacked", user_attribute(session.full_jid)..contact, stanza);
			end
		end
		local function unacked_messages(queue)
			local messages = {};
			for _, stanza in ipairs(queue or {}) do
				if is_unacked_message(stanza) then
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
				unacked(session, stanza);
			end
		end);
		hook("smacks-hibernation-stanza-queued", 0, function (event)
			if event.origin.full_jid and is_unacked_message(event.stanza) then
				unacked(event.origin, event.stanza);
			end
		end);
		hook("smacks-hibernation-end", 0, function (event)
			local user = user_attribute(event.resumed.full_jid);
			feed:emit(host, "resumed", user..s_format(" unacked='%d'", #unacked_messages(event.queue)));
		end);
		-- 10: before mod_smacks (0) has the message stored.
		hook("delivery/failure", 10, function (event)
			if event.session.full_jid and is_unacked_message(event.stanza) then
				feed:emit(host, "message-failed", user_attribute(event.session.full_jid), event.stanza);
			end
		end);
	end;
end
