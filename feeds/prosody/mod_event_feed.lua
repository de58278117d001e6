-- mod_event_feed: hands messages, presences, sessions and rooms to an external
-- component (XEP-0114) in numbered events, keeps them until the component has
-- them on its disk, and sends again what was lost on the way. README.md is the
-- manual, docs/feed-protocol.md the protocol.
--
-- Load it on virtual hosts and MUC components. Options, in the global section:
--	event_feed_component      the component, such as "events.example.org"; needed
--	event_feed_source         the name of this server; default: the first virtual host
--	event_feed_buffer_events  how many events are kept at most (100000)
--	event_feed_buffer_bytes   how many bytes they may have (64 MiB)
--	event_feed_window         how many may be on the wire unacknowledged (512)
--	event_feed_room_missed    rooms whose members are told, when they are away, of
--	                          what is said: "members-only" (the default), "all", "none"
--	event_feed_room_missed_limit  with more members away nobody is told (200, at most 1000)
--
-- One part of it is global, so that all hosts share one sequence.
-- Prosody 0.12 and later.

module:set_global();

local jid_prep = require "util.jid".prep;
local stanza = require "util.stanza";
local math_floor, math_huge, tonumber = math.floor, math.huge, tonumber;
local error, pairs = error, pairs;

local store = module:require "store";
local lib = module:require "feed";
module:require "control"(lib);
module:require "snapshot"(lib);
local hook_messages = module:require "messages"(lib);
local hook_users = module:require "users"(lib);
module:require "missed"(lib);
local hook_rooms = module:require "rooms"(lib);
local Feed, is_name = lib.Feed, lib.is_name;

local file_name = prosody.paths.data.."/event_feed.dat";

local feed; -- the one of the process

local function positive(option, default, most)
	local value = module:get_option_number(option, default);
	if not value or value < 1 or value == math_huge then
		error(("%s must be a number of at least 1"):format(option), 0);
	elseif most and value > most then
		error(("%s must be at most %d"):format(option, most), 0);
	end
	return math_floor(value);
end

local missed_rooms = { ["members-only"] = true, all = true, none = true };

local function read_missed_rooms()
	local rooms = module:get_option_string("event_feed_room_missed", "members-only");
	if not missed_rooms[rooms] then
		error('event_feed_room_missed must be "members-only", "all" or "none"', 0);
	end
	return rooms;
end

-- The first virtual host in the alphabet: the configuration has no order.
local function first_host()
	local first;
	for host, section in pairs(require "core.configmanager".getconfig()) do
		if host ~= "*" and not section.component_module and (not first or host < first) then
			first = host;
		end
	end
	return first;
end

local function read_settings(saved)
	local component = jid_prep(module:get_option_string("event_feed_component"));
	if not component then
		error("set event_feed_component, in the global section, to the external component that takes the events", 0);
	end
	-- Once chosen the name stays: a virtual host more must not make another source.
	local source = module:get_option_string("event_feed_source") or saved and saved.source or first_host();
	if not source or not is_name(source) then
		error("event_feed_source must be a name of 1 to 128 characters without white space", 0);
	end
	return {
		component = component, source = source;
		max_events = positive("event_feed_buffer_events", 100000);
		max_bytes = positive("event_feed_buffer_bytes", 64 * 1024 * 1024);
		window = positive("event_feed_window", 512);
		missed_rooms = read_missed_rooms();
		missed_limit = positive("event_feed_room_missed_limit", 200, 1000);
	};
end

-- What the file says of the epoch, and with events everything.
function Feed:save(with_events, last)
	local header = {
		source = self.settings.source, component = self.settings.component;
		epoch = self.epoch, previous = self.previous, previous_last = self.previous_last;
		clean = self.clean and "true" or "false";
		acked = self.acked, first = self.ring.first, last = last;
		stopped = with_events and "true" or "false";
	};
	return store.save(file_name, header, with_events and self.ring or nil);
end

function Feed:save_running()
	local ok, err = self:save(false);
	if not ok then
		module:log("error", "Cannot write %s: %s. After a crash the component would not learn that events are missing",
			file_name, err);
	end
	return ok;
end

-- Continues the saved epoch if it was stopped cleanly, or begins one.
local function restore(saved, texts)
	local first = tonumber(saved and saved.first);
	local ours = saved and saved.source == feed.settings.source and saved.epoch and is_name(saved.epoch);
	if ours and texts and first and saved.stopped == "true" and saved.component == feed.settings.component then
		feed.previous, feed.previous_last, feed.clean = saved.previous, saved.previous_last, saved.clean == "true";
		feed:continue(saved.epoch, first, tonumber(saved.acked) or first - 1, texts);
		module:log("info", "Epoch %s goes on with %d saved events", feed.epoch, #texts);
		if not feed:save_running() then
			-- The old file would bring these events back after a crash, with
			-- numbers that others have by then.
			feed:begin(saved.epoch, nil, false);
		end
		return;
	end
	if texts and #texts > 0 then
		module:log("error", "%d saved events are dropped: they were for source %s and component %s",
			#texts, saved.source, saved.component);
	end
	if ours then
		feed:begin(saved.epoch, saved.last, false);
		module:log("warn", "Epoch %s begins; the one before it, %s, did not end cleanly: events may be missing",
			feed.epoch, saved.epoch);
	else
		feed:begin();
		module:log("info", "Epoch %s begins", feed.epoch);
	end
	feed:save_running();
end

-- Prosody closes most sessions when it stops; who is left is ended here, since
-- after the restart nobody will be there.
local function end_sessions()
	feed:each_session(function (session)
		local user = " user='"..lib.escape(session.full_jid).."'";
		if session.presence then
			feed:emit(session.host, "offline", user, stanza.presence { type = "unavailable", from = session.full_jid });
		end
		feed:emit(session.host, "session-end", user);
	end);
	if feed.snapshot_list then
		feed:end_snapshot();
	end
end

local function save_all()
	local ok, err = feed:save(true);
	if ok then
		module:log("info", "%d events of epoch %s are saved", feed.ring:count(), feed.epoch);
	else
		module:log("error", "Cannot write %s: %s. %d events are lost", file_name, err, feed.ring:count());
	end
end

module:hook("server-stopped", function ()
	if not feed then -- the module could not be loaded; an error here would keep Prosody from stopping
		return;
	end
	feed:guard("the end of sessions", end_sessions);
	feed:guard("saving", save_all);
end, -1000);

-- The component's connection is seen at once by its events, and by a timer
-- should these events ever fail to come.
local watched = {};
local function watch_component()
	local host = prosody.hosts[feed.settings.component];
	if host and watched[1] ~= host.events then
		watched[1] = host.events;
		module:hook_object_event(host.events, "component-authenticated", function ()
			feed:guard("a connection", feed.watch, feed);
		end);
		module:hook_object_event(host.events, "component-disconnected", function ()
			-- It is still registered while this runs.
			module:add_timer(0, function () feed:guard("a connection", feed.watch, feed); end);
		end, -1);
	end
	feed:watch();
end

local function begin()
	module:set_status("warn", "The component is not connected");
	feed:guard("a connection", watch_component);
	module:add_timer(5, function ()
		feed:guard("a connection", watch_component);
		return 5;
	end);
	module:hook("host-activated", function () feed:guard("a connection", watch_component); end, -1);
	module:hook("server-started", function ()
		local host = prosody.hosts[feed.settings.component];
		if not host or not host.modules.component then
			module:log("error", "event_feed_component is %s, but the configuration has no such Component",
				feed.settings.component);
		end
	end);

	local buffered_events = module:measure("buffered_events", "amount");
	local buffered_bytes = module:measure("buffered_bytes", "amount");
	local counters, reported = {}, {};
	for name in pairs(feed.counts) do
		counters[name], reported[name] = module:measure(name, "counter"), 0;
	end
	module:hook("stats-update", function ()
		buffered_events(feed.ring:count());
		buffered_bytes(feed.ring.bytes);
		for name, count in pairs(feed.counts) do
			counters[name](count - reported[name]);
			reported[name] = count;
		end
	end);
end

local function start()
	local saved, texts, err = store.load(file_name);
	if err then
		module:log("error", "Cannot use all of %s: %s", file_name, err);
	end
	feed = lib.new(read_settings(saved));
	restore(saved, texts);
	begin();
end

function module.load()
	if not module.reloading then -- else restore follows
		start();
	end
end

-- A reload keeps events and numbers.
function module.save()
	return { feed = feed };
end

function module.restore(kept)
	local old = kept.feed;
	if not old then
		return start();
	end
	local settings = read_settings(old.settings);
	if settings.component ~= old.settings.component or settings.source ~= old.settings.source then
		module:log("warn", "Another event_feed_component or event_feed_source takes effect when Prosody is restarted");
		settings.component, settings.source = old.settings.component, old.settings.source;
	end
	feed = lib.adopt(old, settings);
	begin();
end

function module.unload()
	if not module.reloading and feed then
		feed:save(false, feed.ring.next - 1);
	end
end

function module.add_host(host_module)
	local host = host_module.host;
	if not feed then
		return false, "the global part is not loaded";
	end
	if jid_prep(host_module:get_option_string("event_feed_component")) ~= feed.settings.component then
		module:log("error", "event_feed_component belongs into the global section, not to %s", host);
	end
	local kind = "local";
	if host_module:get_host_type() == "component" then
		if not prosody.hosts[host].modules.muc then
			return false, "event_feed works on virtual hosts and on MUC components only";
		end
		kind = "muc";
	end

	feed.hosts[host] = kind;
	feed:hosts_changed();
	if kind == "muc" then
		hook_rooms(host_module, feed);
	else
		hook_messages(host_module, feed);
		hook_users(host_module, feed);
	end
	-- 1000: control messages are no stanzas for anybody else. Users' ones pass.
	host_module:hook("message/host", function (event)
		return feed:guard("a control message", feed.control, feed, event, host);
	end, 1000);

	function host_module.unload()
		feed.hosts[host] = nil;
		feed.heads[host] = nil;
		feed:hosts_changed();
	end
end
