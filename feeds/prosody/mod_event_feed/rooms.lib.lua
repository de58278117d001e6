-- What happens in the rooms of a MUC host.

local jid_resource = require "util.jid".resource;
local ipairs, setmetatable, tostring = ipairs, setmetatable, tostring;

return function (lib)
	local escape = lib.escape;

	return function (host_module, feed)
		local host = host_module.host;
		-- Presences that are about to make a session an occupant.
		local joining = setmetatable({}, { __mode = "k" });

		local function hook(name, priority, f)
			host_module:hook(name, function (event)
				feed:guard(name, f, event);
			end, priority);
		end

		-- occupant is the JID in the room.
		local function room_attributes(room, occupant)
			return " room='"..escape(room.jid).."' nick='"..escape(tostring(jid_resource(occupant))).."'";
		end
		local function emit(kind, user, room, occupant, stanza)
			feed:emit(host, kind, " user='"..escape(user).."'"..room_attributes(room, occupant), stanza);
		end

		-- -20: after what may still refuse the message.
		hook("muc-broadcast-message", -20, function (event)
			local room, stanza = event.room, event.stanza;
			if stanza.attr.type == "error" then
				return;
			end
			local occupant = room:get_occupant_by_nick(stanza.attr.from);
			if not occupant then
				return; -- the room itself
			end
			if not feed:is_user(occupant.bare_jid) then
				emit("room-message", occupant.bare_jid, room, occupant.nick, stanza);
			end
			local attributes = room_attributes(room, occupant.nick);
			feed:missed_by(room, stanza, function (members, said)
				feed:emit(host, "room-missed", attributes.." members='"..members.."'", said);
			end);
		end);

		-- What an API sends to the room passes no pre-message. 1000: before the room.
		for _, address in ipairs { "bare", "full", "host" } do
			hook("message/"..address, 1000, function (event) feed:injected(event); end);
		end

		-- A session that is in the room already and asks to enter again gets
		-- muc-occupant-session-new as well, but no muc-occupant-pre-join.
		-- -1000: when nobody has refused.
		hook("muc-occupant-pre-join", -1000, function (event)
			joining[event.stanza] = true;
		end);
		hook("muc-occupant-session-new", 0, function (event)
			if joining[event.stanza] then
				joining[event.stanza] = nil;
				emit("room-join", event.jid, event.room, event.nick);
			end
		end);

		-- muc-occupant-left comes only with an occupant's last session, so a session
		-- that leaves by its own presence is reported here.
		hook("muc-occupant-pre-leave", -1000, function (event)
			emit("room-part", event.stanza.attr.from, event.room, event.occupant.nick);
		end);
		hook("muc-occupant-left", 0, function (event)
			local stanza = event.stanza;
			if not stanza then -- kicked, banned, or the room is gone
				for jid in event.occupant:each_session() do
					emit("room-part", jid, event.room, event.nick);
				end
			elseif stanza.attr.type == nil then -- has taken another nick
				emit("room-part", stanza.attr.from, event.room, event.nick);
				emit("room-join", stanza.attr.from, event.room, stanza.attr.to);
			end
		end);
	end;
end
