-- Which members of a room miss a message: users of ours who are not in the room
-- and have no session at all. One event has them all, so that a room cannot flood
-- the feed, and there is a bound to what a message costs, whatever an owner writes
-- into the list of members.

local user_exists = require "core.usermanager".user_exists;
local open_store = require "core.storagemanager".open;
local new_cache = require "util.cache".new;
local jid_host, jid_split = require "util.jid".host, require "util.jid".split;
local os_time, s_find, s_sub = os.time, string.find, string.sub;

local bare_sessions = prosody.bare_sessions;

-- The text of a list; a longer one is cut into so many events at most.
local most_bytes, most_events = 16 * 1024, 4;
-- Members and others that are looked at for one message.
local most_affiliations = 10000;
-- Anybody can be made a member, account or not. To look for the account and for whom it
-- blocks (XEP-0191) can mean to read files, so this is done so many times a second at
-- most. Those not known count as accounts that block nobody.
local most_lookups = 50;
-- How long it is believed, in seconds, that there is an account, or none.
local account_for, no_account_for = 600, 60;

local is_member = { member = true, admin = true, owner = true };

-- jid -> { believed until, whether there is an account, whom it blocks }
local known = new_cache(10000);
local second, lookups = 0, 0; -- in this second

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

	-- Whether a member is told of what the occupant of that address says in the room.
	local function wants(jid, room, occupant, now)
		local account = known:get(jid);
		if not account or now >= account.expires then
			account = look_up(jid, now);
		end
		if not account then
			return true;
		end
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

	-- Of these who are not in the room, and want to be told.
	local function absent(room, list, occupant)
		local here = {};
		for _, other in room:each_occupant() do
			here[other.bare_jid] = true;
		end
		local members, n, now = {}, 0, os_time();
		for i = 1, #list do
			local jid = list[i];
			if not here[jid] and wants(jid, room.jid, occupant, now) then
				n = n + 1;
				members[n] = jid;
			end
		end
		return members;
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

	-- Returns the members who miss what is said in the room, as texts of an attribute.
	function Feed:missed_by(room, stanza)
		local rooms = self.settings.missed_rooms;
		if rooms == "none" or rooms ~= "all" and not room:get_members_only() or not is_worth_telling(stanza) then
			return {};
		end
		local list, too_many = self:without_session(room);
		if too_many then
			self:complain("missed", "warn", "Nobody who is away is told of a message in %s: more members are away than "
				.."event_feed_room_missed_limit allows, or the list of members is too long", room.jid);
			return {};
		elseif #list == 0 then
			return {};
		end
		local texts, left = texts_of(absent(room, list, stanza.attr.from));
		if left > 0 then
			self.counts.untold = self.counts.untold + left;
			self:complain("missed", "warn", "%d members who are away are not told of a message in %s: their addresses are too long",
				left, room.jid);
		end
		return texts;
	end
end
