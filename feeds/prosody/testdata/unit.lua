-- The parts that know nothing of Prosody, without one. Run here: lua5.4 testdata/unit.lua SCRATCH

local rings = dofile("mod_event_feed/ring.lib.lua");
local store = dofile("mod_event_feed/store.lib.lua");
local xml = dofile("mod_event_feed/xml.lib.lua");

local function equal(what, got, want)
	if got ~= want then
		error(("%s: %s, want %s"):format(what, tostring(got), tostring(want)), 2);
	end
end

-- A ring against a plain list, over random operations and several limits.
local function ring_against_list(seed)
	math.randomseed(seed);
	local max_events, max_bytes = math.random(1, 20), math.random(1, 200);
	local first = math.random(1, 50);
	local ring = rings.new(max_events, max_bytes, first);
	local list, list_first, next_seq = {}, first, first; -- list[i] is number list_first + i - 1
	for step = 1, 300 do
		local where = ("seed %d, step %d"):format(seed, step);
		local choice = math.random(10);
		if choice <= 7 then
			local text = ("x"):rep(math.random(1, 60));
			local dropped = 0;
			list[#list + 1] = text;
			next_seq = next_seq + 1;
			while #list > max_events or (#list > 1 and #table.concat(list) > max_bytes) do
				table.remove(list, 1);
				list_first, dropped = list_first + 1, dropped + 1;
			end
			equal(where..": dropped", ring:push(text), dropped);
		elseif choice <= 9 then
			local seq = math.random(math.max(0, list_first - 2), next_seq + 1);
			while list_first <= seq and #list > 0 do
				table.remove(list, 1);
				list_first = list_first + 1;
			end
			ring:free(seq);
		else
			max_events, max_bytes = math.random(1, 20), math.random(1, 200);
			while #list > max_events or (#list > 1 and #table.concat(list) > max_bytes) do
				table.remove(list, 1);
				list_first = list_first + 1;
			end
			ring = rings.copy(ring, max_events, max_bytes, ring.first);
		end
		equal(where..": first", ring.first, list_first);
		equal(where..": next", ring.next, next_seq);
		equal(where..": count", ring:count(), #list);
		equal(where..": bytes", ring.bytes, #table.concat(list));
		equal(where..": bytes before the first", ring:bytes_to(list_first - 1), 0);
		local bytes = 0;
		for i = 1, #list do
			bytes = bytes + #list[i];
			equal(where..": text", ring:get(list_first + i - 1), list[i]);
			equal(where..": bytes to", ring:bytes_to(list_first + i - 1), bytes);
		end
	end
end
for seed = 1, 200 do
	ring_against_list(seed);
end

-- A file as it was written, and cut at every byte.
local path = assert(arg[1]);
do
	local ring = rings.new(10, 1000, 7);
	for _, text in ipairs { "<a/>", "with\nline\nends\n", "end", "\0\255" } do
		ring:push(text);
	end
	assert(store.save(path, { epoch = "e 1", stopped = "true" }, ring));
	local header, texts, err = store.load(path);
	equal("epoch", header.epoch, "e 1");
	equal("error", err, nil);
	equal("texts", table.concat(texts, "|"), "<a/>|with\nline\nends\n|end|\0\255");

	local file = assert(io.open(path, "rb"));
	local whole = file:read("*a");
	file:close();
	for length = 0, #whole - 2 do -- without the last line end it is whole still
		file = assert(io.open(path, "wb"));
		file:write(whole:sub(1, length));
		file:close();
		local _, cut, reason = store.load(path);
		if cut or not reason then
			error(("of %d bytes %d are enough"):format(#whole, length));
		end
	end

	assert(store.save(path, { epoch = "e 2" }));
	header, texts = store.load(path);
	equal("epoch", header.epoch, "e 2");
	equal("texts", #texts, 0);
	local ok, reason = store.save(path.."/no/such/directory", {});
	assert(not ok and reason, "saved nowhere");
	os.remove(path);
	equal("without a file", store.load(path), nil);
end

-- What a serialiser must not get wrong; the tests with a server compare more.
do
	equal("attribute", xml.escape("a<b>'\"&\r\n\t"), "a&lt;b&gt;&apos;\"&amp;&#13;&#10;&#9;");
	equal("empty", xml.stanza { name = "message", attr = {} }, "<message xmlns='jabber:client'/>");
	equal("own namespace", xml.stanza { name = "message", attr = { xmlns = "jabber:client" } },
		"<message xmlns='jabber:client'/>");
	equal("children", xml.stanza { name = "message", attr = {};
		{ name = "body", attr = {}; "it's ", "<&>\r\n" };
		{ name = "x", attr = { xmlns = "urn:x" }; { name = "y", attr = { xmlns = "urn:x" } } };
	}, "<message xmlns='jabber:client'><body>it's &lt;&amp;&gt;&#13;\n</body><x xmlns='urn:x'><y/></x></message>");
	local wide = { name = "message", attr = {} };
	for i = 1, 2000 do
		wide[i] = { name = "y", attr = {} };
	end
	equal("wide", #xml.stanza(wide), #"<message xmlns='jabber:client'></message>" + 2000 * #"<y/>");
	local ok = pcall(xml.stanza, { name = "message", attr = {}; 42 });
	equal("nonsense", ok, false);
	equal("after nonsense", xml.stanza { name = "message", attr = {} }, "<message xmlns='jabber:client'/>");
end
