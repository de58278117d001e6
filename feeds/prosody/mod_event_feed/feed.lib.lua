-- The source: numbers events, keeps them, and sends as many as the component's
-- window has room for. docs/feed-protocol.md is the protocol.
--
-- There is one feed in a process. It is a plain table that outlives a reload of
-- the module; methods are looked up in it at each call, so that the hooks of a
-- host that was not reloaded use the new code as well.

local now = require "util.time".now;
local new_id = require "util.id".short;
local s_find, s_format, s_gsub, s_sub = string.find, string.format, string.gsub, string.sub;
local t_concat, t_sort = table.concat, table.sort;
local math_min, os_time = math.min, os.time;
local pairs, pcall, setmetatable, tostring = pairs, pcall, setmetatable, tostring;

local rings = module:require "ring";
local xml = module:require "xml";
local escape, stanza_text = xml.escape, xml.stanza;

local xmlns_feed = "urn:eventpusher:feed:1";

-- It grows with each change of the module, so that the component can say that it is old.
local revision = 4;

-- One turn of the event loop sends at most so much: about 5 ms of work, so that
-- no user waits for a replay.
local slice_events, slice_bytes = 256, 256 * 1024;
-- With so many bytes on the wire no more are sent, even if the window has room:
-- Prosody copies all that a socket has not taken each time that it takes some.
local flight_bytes = 2 * 1024 * 1024;
-- Events that wait for a timer before they are written in one piece. Timers
-- come late when sockets are busy; this many do not wait for them.
local batch_events = 32;
-- A complaint of one kind is logged at most once in so many seconds.
local complaint_interval = 60;

local Feed = {};
Feed.__index = Feed;

-- settings: component, source, window, max_events, max_bytes. The epoch has
-- still to be begun.
local function new(settings)
	return setmetatable({
		settings = settings;
		ring = rings.new(settings.max_events, settings.max_bytes, 1);
		acked = 0; -- the highest number that was acknowledged in this epoch
		sent = 0; -- the highest number that was sent on this connection
		base = 0; -- sent - base events are on the wire
		ready = false; -- the component has said where to go on
		token = ""; -- an attribute: what its resume had as a token
		restored = false; -- the epoch was saved, and the component has not confirmed it
		hosts = {}; -- host -> "local" or "muc"
		heads = {}; -- host -> how the text of an event begins
		waiting = 0; -- events since the last write
		counts = { events = 0, lost = 0, ignored = 0, errors = 0, untold = 0 };
		complaints = {};
	}, Feed);
end

-- Takes over the feed of the module as it was before a reload.
local function adopt(feed, settings)
	setmetatable(feed, Feed);
	feed.settings = settings;
	feed.ring = rings.copy(feed.ring, settings.max_events, settings.max_bytes, feed.ring.first);
	feed.scheduled, feed.pumping, feed.hosts_pending = false, false, false; -- the timers of old are dead
	feed.link, feed.ready, feed.greeted, feed.token = nil, false, nil, "";
	return feed;
end

-- Logs, but not the same again and again.
function Feed:complain(kind, level, message, ...)
	local last, time = self.complaints[kind], os_time();
	if last and time >= last and time - last < complaint_interval then
		return;
	end
	self.complaints[kind] = time;
	module:log(level, message, ...);
end

-- Runs f and returns what it returns. An error ends here: nothing of ours may
-- stop a user's stanza.
function Feed:guard(what, f, ...)
	local ok, result = pcall(f, ...);
	if ok then
		return result;
	end
	self.counts.errors = self.counts.errors + 1;
	self:complain("error "..what, "error", "Nothing was reported, because of an error in %s: %s", what, tostring(result));
end

-- Begins an epoch. What is kept is numbered again from 1.
function Feed:begin(previous, previous_last, clean)
	self.epoch = s_format("%x-%s", os_time(), new_id());
	self.previous, self.previous_last, self.clean = previous, previous_last, clean;
	self.heads = {};
	local epoch = escape(self.epoch);
	self.ring = rings.copy(self.ring, self.settings.max_events, self.settings.max_bytes, 1, function (seq, text)
		return (s_gsub(text, "^(.- epoch=')[^']*(' seq=')%d+", function (before, after)
			return before..epoch..after..seq;
		end, 1));
	end);
	self.acked, self.sent, self.base, self.ready, self.restored = 0, 0, 0, false, false;
end

-- Goes on with an epoch whose events were saved.
function Feed:continue(epoch, first, acked, texts)
	self.epoch, self.heads = epoch, {};
	self.ring = rings.new(self.settings.max_events, self.settings.max_bytes, first);
	for i = 1, #texts do
		self.ring:push(texts[i]);
	end
	self.acked, self.restored = acked, true;
end

-- As the protocol has names and tokens: 1 to 128 bytes, none of them white.
local function is_name(text)
	return text ~= "" and #text <= 128 and not s_find(text, "[%s%c]");
end

-- The start of each text: message, and the attributes that every element of
-- ours has.
function Feed:element(host, name)
	return "<message from='"..escape(host).."' to='"..escape(self.settings.component).."'><"..name..
		" xmlns='"..xmlns_feed.."' source='"..escape(self.settings.source).."' epoch='"..escape(self.epoch).."'";
end

-- Adds an event. attributes is text, with a space in front of each.
function Feed:emit(host, kind, attributes, stanza)
	local head = self.heads[host];
	if not head then
		head = self:element(host, "event").." seq='";
		self.heads[host] = head;
	end
	local ring = self.ring;
	local text;
	if stanza then
		text = head..ring.next.."' kind='"..kind.."'"..attributes..s_format(" t='%.3f'", now())..
			"/><forwarded xmlns='urn:xmpp:forward:0'>"..stanza_text(stanza).."</forwarded></message>";
	else
		text = head..ring.next.."' kind='"..kind.."'"..attributes..s_format(" t='%.3f'", now()).."/></message>";
	end
	if ring:push(text) > 0 then
		self:complain("full", "error", "The buffer is full (%d events, %d bytes): the oldest events are dropped. %s",
			ring:count(), ring.bytes, self.ready and "The component does not keep up" or "The component is not connected");
	end
	self.counts.events = self.counts.events + 1;
	if self.ready then
		self.waiting = self.waiting + 1;
		if self.waiting >= batch_events then
			self:pump();
		else
			self:schedule();
		end
	end
end

-- Lets pump run in the next turn of the event loop.
function Feed:schedule()
	if self.scheduled or not self:has_room() then
		return; -- the next acknowledgement pumps
	end
	self.scheduled = true;
	module:add_timer(0, function ()
		self.scheduled = false;
		self:guard("sending", self.pump, self);
	end);
end

-- Whether the component's connection is there and waits for events.
function Feed:open()
	local link = self.link;
	return self.ready and link and not link.destroyed;
end

function Feed:has_room()
	return self.sent - self.base < self.settings.window and
		self.ring:bytes_to(self.sent) - self.ring:bytes_to(self.base) < flight_bytes;
end

-- Sends one slice of what the window has room for.
function Feed:pump()
	self.waiting = 0;
	if self.pumping or not self:open() then
		return;
	end
	self.pumping = true;
	self:guard("a snapshot", self.continue_snapshot, self);
	self:guard("sending", self.send_slice, self);
	self.pumping = false;
	if self.sent + 1 < self.ring.next or self.snapshot_list then
		self:schedule();
	end
end

function Feed:send_slice()
	if not self:has_room() then
		return;
	end
	local ring, sent, base = self.ring, self.sent, self.base;
	local texts, n, lost, token = {}, 0, nil, self.token;
	if sent + 1 < ring.first then -- dropped before they could be sent or sent again
		lost = ring.first - 1 - sent;
		n = 1;
		texts[1] = self:element(self:speaker(), "lost")..token.." from='"..(sent + 1).."' to='"..(ring.first - 1).."'/></message>";
		sent, base = sent + lost, base + lost; -- what is on the wire is on the wire still
	end
	local last = math_min(ring.next - 1, base + self.settings.window, sent + slice_events);
	local room = math_min(slice_bytes, flight_bytes - (ring:bytes_to(sent) - ring:bytes_to(base)));
	while sent < last and room > 0 do
		sent, n = sent + 1, n + 1;
		local text = ring:get(sent);
		if token ~= "" then
			-- No value has a space before seq: none of those in front of it may have spaces.
			local at = s_find(text, " seq='", 1, true);
			text = s_sub(text, 1, at - 1)..token..s_sub(text, at);
		end
		texts[n] = text;
		room = room - #text;
	end
	if n == 0 then
		return;
	end
	self.link.send(t_concat(texts));
	self.sent, self.base = sent, base;
	if lost then
		self.counts.lost = self.counts.lost + lost;
		module:log("error", "%d events of epoch %s were dropped unacknowledged, up to number %d; the component was told",
			lost, self.epoch, ring.first - 1);
	end
end

-- The component has everything up to seq of this epoch.
function Feed:free(seq)
	self.ring:free(seq);
	if seq > self.acked then
		self.acked = seq;
	end
	if seq > self.base then
		self.base = seq;
	end
end

-- Goes on behind seq.
function Feed:rewind(seq)
	self.sent, self.base, self.ready = seq, seq, true;
	self:pump();
end

function Feed:host_names()
	local names = {};
	for host in pairs(self.hosts) do
		names[#names + 1] = host;
	end
	t_sort(names);
	return names;
end

function Feed:host_list()
	return t_concat(self:host_names(), " ");
end

-- The host that speaks for the source: the one that the component has answered; else
-- the first virtual host, or any other when there is none.
function Feed:speaker()
	local names, hosts = self:host_names(), self.hosts;
	if hosts[self.answered] then
		return self.answered;
	end
	for i = 1, #names do
		if hosts[names[i]] == "local" then
			return names[i];
		end
	end
	return names[1];
end

return { Feed = Feed, new = new, adopt = adopt, xmlns = xmlns_feed, revision = revision, escape = escape, is_name = is_name };
