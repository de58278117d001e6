-- Which members of a room miss a message: users of ours who are not in the room
-- and have no session at all. One event has them all, so that a room cannot flood
-- the feed, and there is a bound to what a message costs, whatever an owner writes
-- into the list of members.

local user_exists = require "core.usermanager".user_exists;
local open_store = require "core.storagemanager".open;
local new_cache = require "util.cache".new;
local jid_host, jid_split = require "util.jid".host, require "util.jid".split;
local clone = require "util.stanza".clone;
local os_time, s_find, s_sub, t_remove = os.time, string.find, string.sub, table.remove;

local bare_sessions = prosody.bare_sessions;

-- The text of a list; a longer one is cut into so many events at most.
local most_bytes, most_events = 16 * 1024, 4;
-- Members and others that are looked at for one message.
local most_affiliations = 10000;
-- Anybody can be made a member, account or not. To look for the account and for whom it
-- blocks (XEP-0191) can mean to read files, so this is done so many times a second at
-- most. Those not known are told of the message once they are: the server must not notify
-- anybody of what it would not hand over.
local most_lookups = 50;
-- Messages that wait for that, and members of all of them. A message more is told to those
-- who are known only.
local most_waiting, most_waiting_members = 100, 5000;
-- How long it is believed, in seconds, that there is an account, or none.
local account_for, no_account_for = 600, 60;

local is_member = { member = true, admin = true, owner = true };

-- jid -> { believed until, whether there is an account, whom it blocks }
local known = new_cache(10000);
local second, lookups = 0, 0; -- in this second

-- What waits: { room, occupant, stanza, tell, members, next of them, found of them }
local waiting, waiting_members, asking = {}, 0, false;

return function (lib)
	local Feed, escape = lib.Feed, lib.escape;

	-- Whether a member would want to know of it: something was said, and its sender
	-- does not ask to forget it (XEP-0334).
	local function is_worth_telling(stanza)
		local body = stanza:get_child_text("body");
		return stanza.attr.type == "groupchat" and body and body ~= "" and not stanza:get_child("no-store", "urn:xmpp:hints");
	end

	local function look_up(jid, now)
		if now ~= second then
			second, lookups = now, 0;
		end
		if lookups >= most_lookups then
			return nil;
		end
		lookups = lookups + 1;
		local user, host = jid_split(jid);
		local account = { exists = user_exists(user, host) };
		account.expires = now + (account.exists and account_for or no_account_for);
		if account.exists and prosody.hosts[host].modules.blocklist then
			account.blocks = open_store(host, "blocklist"):get(user);
		end
		known:set(jid, account);
		return account;
	end

	-- What is known of an account, nil if that cannot be asked in this second.
	local function account_of(jid, now)
		local account = known:get(jid);
		if account and now < account.expires then
			return account;
		end
		return look_up(jid, now) or account;
	end

	-- Whether the owner of an account is told of what the occupant of that address says in the room.
	local function wants(account, room, occupant)
		local blocks = account.blocks;
		return account.exists and not (blocks and (blocks[room] or blocks[occupant] or blocks[jid_host(room)]));
	end

	-- The account has changed, or is about to change, whom it blocks.
	function Feed:forget_blocks(jid) -- luacheck: ignore 212/self
		known:set(jid, nil);
	end

	-- The members without a session, or nothing and true if they are too many.
	function Feed:without_session(room)
		local list, n, seen = {}, 0, 0;
		local hosts, limit = self.hosts, self.settings.missed_limit;
		for jid, affiliation in room:each_affiliation() do
			seen = seen + 1;
			if seen > most_affiliations then
				return nil, true;
			end
			if is_member[affiliation] and not bare_sessions[jid] then
				local at = s_find(jid, "@", 2, true); -- what has none is a host
				if at and hosts[s_sub(jid, at + 1)] == "local" then
					n = n + 1;
					if n > limit then
						return nil, true;
					end
					list[n] = jid;
				end
			end
		end
		return list;
	end

	-- Of these who are not in the room, and want to be told, and those of whom that cannot be
	-- said yet.
	local function absent(room, list, occupant)
		local here = {};
		for _, other in room:each_occupant() do
			here[other.bare_jid] = true;
		end
		local members, unknown, now = {}, {}, os_time();
		for i = 1, #list do
			local jid = list[i];
			local account = not here[jid] and account_of(jid, now);
			if account == nil then
				unknown[#unknown + 1] = jid;
			elseif account and wants(account, room.jid, occupant) then
				members[#members + 1] = jid;
			end
		end
		return members, unknown;
	end

	-- Cuts the list into texts for as many events, and says how many members are left over.
	local function texts_of(members)
		local texts, text, count = {}, "", #members;
		for i = 1, count do
			local member = escape(members[i]);
			if text == "" then
				text = member;
			elseif #text + 1 + #member <= most_bytes then
				text = text.." "..member;
			elseif #texts + 1 == most_events then
				count = i - 1;
				break;
			else
				texts[#texts + 1], text = text, member;
			end
		end
		if text ~= "" then
			texts[#texts + 1] = text;
		end
		return texts, #members - count;
	end

	-- Calls tell with the texts of an attribute that name these members.
	local function tell_all(feed, members, room, stanza, tell)
		local texts, left = texts_of(members);
		if left > 0 then
			feed.counts.untold = feed.counts.untold + left;
			feed:complain("missed", "warn", "%d members who are away are not told of a message in %s: their addresses are too long",
				left, room);
		end
		for i = 1, #texts do
			tell(texts[i], stanza);
		end
	end

	-- Asks for members in the order in which they came, and tells those who want to be told.
	-- Returns when to go on.
	function Feed:ask_for_members()
		local now = os_time();
		while waiting[1] do
			local one = waiting[1];
			while one.next <= #one.members do
				local jid = one.members[one.next];
				local account = account_of(jid, now);
				if not account then
					return 1;
				end
				one.next, waiting_members = one.next + 1, waiting_members - 1;
				if not bare_sessions[jid] and wants(account, one.room, one.occupant) then
					one.found[#one.found + 1] = jid;
				end
			end
			t_remove(waiting, 1);
			tell_all(self, one.found, one.room, one.stanza, one.tell);
		end
	end

	local function ask_later(feed, members, room, stanza, tell)
		if #waiting >= most_waiting or waiting_members + #members > most_waiting_members then
			feed.counts.untold = feed.counts.untold + #members;
			feed:complain("missed", "warn", "%d members who are away are not told of a message in %s: too many accounts are asked for",
				#members, room);
			return;
		end
		waiting_members = waiting_members + #members;
		waiting[#waiting + 1] = {
			room = room, occupant = stanza.attr.from, stanza = clone(stanza), tell = tell, members = members, next = 1, found = {};
		};
		if not asking then
			asking = true;
			module:add_timer(1, function ()
				local again = feed:guard("members", feed.ask_for_members, feed);
				if not again and waiting[1] then -- an error: nobody waits for what has made it
					waiting_members = waiting_members - (#waiting[1].members - waiting[1].next + 1);
					t_remove(waiting, 1);
					again = 1;
				end
				asking = again ~= nil;
				return again;
			end);
		end
	end

	-- Calls tell, at once or within seconds, with the members who miss what is said in the room,
	-- as texts of an attribute, and the stanza.
	function Feed:missed_by(room, stanza, tell)
		local rooms = self.settings.missed_rooms;
		if rooms == "none" or rooms ~= "all" and not room:get_members_only() or not is_worth_telling(stanza) then
			return;
		end
		local list, too_many = self:without_session(room);
		if too_many then
			self:complain("missed", "warn", "Nobody who is away is told of a message in %s: more members are away than "
				.."event_feed_room_missed_limit allows, or the list of members is too long", room.jid);
			return;
		elseif #list == 0 then
			return;
		end
		local members, unknown = absent(room, list, stanza.attr.from);
		tell_all(self, members, room.jid, stanza, tell);
		if #unknown > 0 then
			ask_later(self, unknown, room.jid, stanza, tell);
		end
	end
end
