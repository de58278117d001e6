-- Stanzas as text.
--
-- Prosody has a serialiser of its own. This one exists because an event is
-- written once for every message of every user, and because the text is parsed
-- again on the other side: a carriage return in a body, or a line break in an
-- attribute, must be a character reference to survive that (XML 1.0, 2.11 and
-- 3.3.3). Apostrophes in text stay as they are, so that text keeps its size.

local s_find, s_gsub, s_match = string.find, string.gsub, string.match;
local t_concat = table.concat;
local pairs = pairs;

local text_references = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["\r"] = "&#13;" };
local attribute_references = {
	["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["'"] = "&apos;";
	["\t"] = "&#9;", ["\n"] = "&#10;", ["\r"] = "&#13;";
};

-- Most values need no reference at all, and find is cheaper than gsub.
local function escape_attribute(value)
	if s_find(value, "[&<>'\t\n\r]") then
		value = s_gsub(value, "[&<>'\t\n\r]", attribute_references);
	end
	return value;
end

local parts, n = {}, 0; -- of the stanza that is being written

-- How many parts are kept from one stanza to the next at most.
local keep_parts = 512;

-- An attribute of a namespace is stored as namespace, \1, name.
local function qualified_attribute(key, value, number)
	local namespace, name = s_match(key, "^([^\1]*)\1(.*)$");
	local prefix = "ns"..number;
	return " xmlns:"..prefix.."='"..escape_attribute(namespace).."' "..
		prefix..":"..name.."='"..escape_attribute(value).."'";
end

-- An element without xmlns is in its parent's namespace, and says nothing;
-- declare is what the root has to say instead.
local function write(element, parent_namespace, declare)
	local name, attr = element.name, element.attr;
	local tag, qualified = "<"..name..declare, 0;
	for key, value in pairs(attr) do
		if key == "xmlns" then
			if value ~= parent_namespace then
				tag = tag.." xmlns='"..escape_attribute(value).."'";
			end
		elseif s_find(key, "\1", 1, true) then
			qualified = qualified + 1;
			tag = tag..qualified_attribute(key, value, qualified);
		else
			tag = tag.." "..key.."='"..escape_attribute(value).."'";
		end
	end
	local children = #element;
	if children == 0 then
		n = n + 1;
		parts[n] = tag.."/>";
		return;
	end
	n = n + 1;
	parts[n] = tag..">";
	for i = 1, children do
		local child = element[i];
		if child.name then
			write(child, attr.xmlns, "");
		else
			if s_find(child, "[&<>\r]") then
				child = s_gsub(child, "[&<>\r]", text_references);
			end
			n = n + 1;
			parts[n] = child;
		end
	end
	n = n + 1;
	parts[n] = "</"..name..">";
end

-- The stanza as it has to stand inside an element of another namespace: in
-- jabber:client, which Prosody leaves out.
local function stanza_text(stanza)
	n = 0;
	write(stanza, nil, stanza.attr.xmlns and "" or " xmlns='jabber:client'");
	local text = t_concat(parts, "", 1, n);
	if n > keep_parts then
		parts = {};
	end
	return text;
end

return { escape = escape_attribute, stanza = stanza_text };
