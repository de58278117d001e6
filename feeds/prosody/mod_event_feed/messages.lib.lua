-- Messages: what somebody sends, what reaches a user of ours, what is stored.
--
-- A message to a user is reported by what becomes of it, not by what was sent: when a
-- session is about to take it, or when it is stored. One that ends before, because the
-- recipient blocks the sender or has no account, has not reached anybody.

local load_roster = require "core.rostermanager".load_roster;
local jid_split = require "util.jid".split;
local s_find, s_match = string.find, string.match;
local ipairs, pairs, pcall, setmetatable = ipairs, pairs, pcall, setmetatable;

local bare_sessions, full_sessions = prosody.bare_sessions, prosody.full_sessions;

-- The message that is on its way to a user of ours and was not reported yet, and as what
-- it will be.
local waiting, waiting_kind;

-- Messages that another server has not acknowledged, and that mod_smacks sends again.
local resent = setmetatable({}, { __mode = "k" });

return function (lib)
	local Feed, escape = lib.Feed, lib.escape;

	-- Whether a JID is a user's (not a host's, not a room's) of our hosts.
	function Feed:is_user(jid)
		local host = jid and s_match(jid, "^[^@/]+@([^/]+)");
		return host and self.hosts[host] == "local";
	end

	local function bare(jid)
		return s_match(jid, "^[^/]*");
	end

	-- The attribute that says so if the sender of a chat message is not on the roster of a
	-- user of ours, a bare JID. Where that cannot be told there is none. Prosody keeps the
	-- rosters of 1024 users who are away in memory.
	function Feed:contact(user, stanza) -- luacheck: ignore 212/self
		local from = stanza.attr.from and bare(stanza.attr.from);
		if stanza.attr.type ~= "chat" or not from or from == user then
			return "";
		end
		local ok, roster = pcall(load_roster, jid_split(user));
		if not ok or not roster or roster[from] or roster[false] and roster[false].broken then
			return "";
		end
		return " contact='false'";
	end

	-- The same where it costs little: of somebody who has a session nobody needs it.
	local function contact_of_absent(feed, to, stanza)
		to = bare(to);
		return feed:is_user(to) and not bare_sessions[to] and feed:contact(to, stanza) or "";
	end

	-- XEP-0163: the server writes these in the name of their owner, to every contact.
	function Feed:is_notification(stanza)
		return stanza.attr.type == "headline" and self:is_user(stanza.attr.from)
			and stanza:get_child("event", "http://jabber.org/protocol/pubsub#event");
	end

	-- As what a message is reported, if it is. A user of ours has sent it if a session has,
	-- or an API of the server, which acts as the host. A component may use a user's address
	-- too (XEP-0356, or without validate_from_addresses), and has no session then.
	local function kind_of(feed, event)
		local origin, stanza = event.origin or {}, event.stanza; -- another module may have fired it
		if stanza.attr.type == "error" then
			return nil;
		elseif not feed:is_user(stanza.attr.from) then
			return "message-received";
		elseif origin.full_jid then
			return "message-sent";
		elseif feed:is_notification(stanza) then
			return nil;
		end
		return origin.type == "local" and "message-sent" or "message-received";
	end

	-- As mod_message: whether a session takes it.
	local function is_taken(stanza)
		local attr = stanza.attr;
		local to, kind = attr.to or bare(attr.from), attr.type;
		if full_sessions[to] then
			return true;
		end
		local user = bare_sessions[bare(to)];
		if not user or kind == "groupchat" then
			return false;
		elseif kind ~= "headline" then
			return user.top_resources and user.top_resources[1] ~= nil;
		elseif not s_find(to, "/", 1, true) then
			for _, session in pairs(user.sessions) do
				if session.presence and session.priority >= 0 then
					return true;
				end
			end
		end
		return false;
	end

	-- more is a further attribute.
	local function emit_sent(feed, stanza, more)
		local attr = stanza.attr;
		local from = attr.from;
		-- Prosody takes away an address that is the sender's own account.
		feed:emit(s_match(from, "@([^/]+)"), "message-sent",
			" user='"..escape(from).."' to='"..escape(attr.to or bare(from)).."'"..more, stanza);
	end

	local function emit_reached(feed, event, host)
		waiting = nil;
		local attr = event.stanza.attr;
		local to = attr.to or bare(attr.from);
		local contact = contact_of_absent(feed, to, event.stanza);
		if waiting_kind == "message-sent" then
			return emit_sent(feed, event.stanza, contact);
		end
		to = escape(to);
		feed:emit(host, "message-received", " user='"..to.."' to='"..to.."'"..contact, event.stanza);
	end

	-- Messages to a user of ours are reported where they arrive, others here.
	local function sent(feed, event)
		local to = event.stanza.attr.to;
		if to and not feed:is_user(to) and kind_of(feed, event) == "message-sent" then
			emit_sent(feed, event.stanza, "");
		end
	end

	-- What an API sends passes no pre-message. The host itself sends what was resent.
	function Feed:injected(event)
		local origin = event.origin;
		if origin and origin.type == "local" and event.stanza.name == "message" and not resent[event.stanza] then
			sent(self, event);
		end
	end

	function Feed:note_unacked(session) -- luacheck: ignore 212/self
		local queue = session.outgoing_stanza_queue;
		for _, stanza in ipairs(queue and queue:table() or {}) do
			resent[stanza] = true;
		end
	end

	-- A host's hooks see an event as it is passed to them, and return nothing:
	-- the stanza goes on. Feed:guard keeps our errors from the others.
	return function (host_module, feed)
		local host = host_module.host;

		-- -20: after blocking, archives, carbons and firewalls.
		for _, address in ipairs { "bare", "full", "host" } do
			host_module:hook("pre-message/"..address, function (event)
				feed:guard("pre-message/"..address, sent, feed, event);
			end, -20);
		end
		for _, name in ipairs { "message/host", "route/remote" } do
			host_module:hook(name, function (event)
				feed:guard(name, feed.injected, feed, event);
			end, 1000);
		end

		-- 10: before mod_smacks (0) sends them again (smacks_s2s_resend, since Prosody 13).
		for _, name in ipairs { "s2sout-destroyed", "s2sin-destroyed" } do
			host_module:hook(name, function (event)
				feed:guard(name, feed.note_unacked, feed, event.session);
			end, 10);
		end

		for _, name in ipairs { "message/bare", "message/full" } do
			-- Between carbons (-0.5) and delivery (-1), which ends the chain, there is only -0.9.
			host_module:hook(name, function (event)
				if waiting == event and is_taken(event.stanza) then
					feed:guard(name, emit_reached, feed, event, host);
				end
			end, -0.9);
			host_module:wrap_event(name, function (handlers, _, event)
				local kind = kind_of(feed, event);
				if not kind then
					return handlers(name, event);
				end
				local outer, outer_kind = waiting, waiting_kind;
				waiting, waiting_kind = event, kind;
				local result = handlers(name, event);
				if waiting == event and kind == "message-sent" then
					feed:guard(name, emit_sent, feed, event.stanza, " reached='false'");
				end
				waiting, waiting_kind = outer, outer_kind;
				return result;
			end);
		end

		-- Whoever stores the message returns true, so the wrapper knows.
		host_module:wrap_event("message/offline/handle", function (handlers, name, event)
			local stored = handlers(name, event);
			if stored then
				local arrived = waiting and waiting.stanza == event.stanza and waiting;
				feed:guard(name, function ()
					if arrived then
						emit_reached(feed, arrived, host);
					end
					local user = event.username.."@"..host;
					feed:emit(host, "message-offline", " user='"..escape(user).."'"..feed:contact(user, event.stanza), event.stanza);
				end);
			end
			return stored;
		end);
	end;
end
