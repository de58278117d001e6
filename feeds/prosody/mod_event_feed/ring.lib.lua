-- The events that the component has not acknowledged, as text.
--
-- Number seq stands in slot (seq-1) % max_events + 1, so that pushing, freeing
-- and dropping cost the same however many events there are. A free slot is
-- false, never nil: the table stays an array.

local setmetatable = setmetatable;

local ring = {};
ring.__index = ring;

-- first is the number of the next event when nothing is kept.
local function new(max_events, max_bytes, first)
	return setmetatable({
		max_events = max_events, max_bytes = max_bytes;
		slots = {}, bytes = 0;
		ends = {}; -- by slot: how many bytes there were up to and with this event
		freed = 0; -- how many there were before the first
		first = first; -- the oldest kept
		next = first; -- the number that the next one gets
	}, ring);
end

-- Forgets the oldest event.
function ring:drop()
	local slot = (self.first - 1) % self.max_events + 1;
	self.bytes = self.bytes - #self.slots[slot];
	self.slots[slot] = false;
	self.freed = self.ends[slot];
	self.first = self.first + 1;
end

-- Keeps an event and returns how many old ones had to go for it. The newest is
-- always kept, even if it alone is larger than the limit.
function ring:push(text)
	local dropped, seq = 0, self.next;
	if seq - self.first >= self.max_events then
		self:drop();
		dropped = 1;
	end
	local slot = (seq - 1) % self.max_events + 1;
	self.slots[slot] = text;
	self.bytes = self.bytes + #text;
	self.ends[slot] = self.freed + self.bytes;
	self.next = seq + 1;
	while self.bytes > self.max_bytes and self.first < seq do
		self:drop();
		dropped = dropped + 1;
	end
	return dropped;
end

-- Forgets everything up to seq.
function ring:free(seq)
	while self.first <= seq and self.first < self.next do
		self:drop();
	end
end

function ring:get(seq)
	return self.slots[(seq - 1) % self.max_events + 1];
end

-- How many bytes are kept up to and with seq.
function ring:bytes_to(seq)
	return seq >= self.first and self.ends[(seq - 1) % self.max_events + 1] - self.freed or 0;
end

function ring:count()
	return self.next - self.first;
end

-- The same events under other limits, or with code that was loaded again.
-- change, if given, gets number and text and returns the text to keep.
local function copy(old, max_events, max_bytes, first, change)
	local fresh = new(max_events, max_bytes, first);
	for seq = old.first, old.next - 1 do
		local text = old.slots[(seq - 1) % old.max_events + 1];
		fresh:push(change and change(fresh.next, text) or text);
	end
	return fresh;
end

return { new = new, copy = copy };
