-- What outlives a restart: one file next to Prosody's data.
--
-- While Prosody runs the file says only which epoch is in use, so that after a
-- crash the next one can name it. A clean stop adds the events that were not
-- acknowledged. Taking them back and marking the epoch as in use again is one
-- rename, so that no later crash can bring them back a second time.
--
--	event_feed 1
--	KEY VALUE        any number of lines
--	events COUNT
--	LENGTH
--	TEXT             COUNT times
--	end

local io_open, os_rename, os_remove = io.open, os.rename, os.remove;
local s_match = string.match;
local tonumber, tostring, pairs = tonumber, tostring, pairs;

local magic = "event_feed 1";

local function write_all(file, header, ring)
	local ok, err = file:write(magic, "\n");
	for key, value in pairs(header) do
		ok, err = ok and file:write(key, " ", tostring(value), "\n"), err;
	end
	local first, last = 1, 0;
	if ring then
		first, last = ring.first, ring.next - 1;
	end
	ok, err = ok and file:write("events ", tostring(last - first + 1), "\n"), err;
	for seq = first, last do
		if not ok then break; end
		local text = ring:get(seq);
		ok, err = file:write(tostring(#text), "\n", text, "\n");
	end
	if ok then
		ok, err = file:write("end\n");
	end
	return ok, err;
end

-- Replaces the file. Header values must have no line breaks. Returns true, or
-- nil and what went wrong; then the old file is as it was.
local function save(path, header, ring)
	local scratch = path.."~";
	local file, err = io_open(scratch, "wb");
	if not file then
		return nil, err;
	end
	local written, closed, close_err;
	written, err = write_all(file, header, ring);
	closed, close_err = file:close();
	if not (written and closed) then
		os_remove(scratch);
		return nil, err or close_err;
	end
	return os_rename(scratch, path);
end

local function read_events(file, count)
	local texts = count >= 0 and {} or nil;
	for i = 1, count do
		local length = tonumber(s_match(file:read("*l") or "", "^%d+$"));
		local text = length and file:read(length);
		if not text or #text ~= length or file:read(1) ~= "\n" then
			return nil;
		end
		texts[i] = text;
	end
	return texts and file:read("*l") == "end" and texts or nil;
end

-- Returns the header, the texts of the events, and what was wrong. Without a
-- file that is nothing at all, with a useless one only the last, and with one
-- that is cut short there are no texts.
local function load(path)
	local file = io_open(path, "rb");
	if not file then
		return nil;
	end
	if file:read("*l") ~= magic then
		file:close();
		return nil, nil, "it is not of this version";
	end
	local header, texts = {}, nil;
	for line in file:lines() do
		local key, value = s_match(line, "^(%S+) (.*)$");
		if key == "events" then
			texts = read_events(file, tonumber(value) or -1);
			break;
		elseif key then
			header[key] = value;
		end
	end
	file:close();
	return header, texts, not texts and "it is cut short" or nil;
end

return { save = save, load = load };
