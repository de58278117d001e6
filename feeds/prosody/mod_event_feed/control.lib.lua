-- The conversation with the component: hello, resume, ack, snapshot.

local s_find = string.find;
local tonumber = tonumber;
local math_type = math.type or function () return "integer" end; -- Lua 5.2 has no integers

-- An unanswered hello is repeated after so many seconds, from the next host; the
-- component may serve only some of them. The first round takes less.
local hello_interval, first_hello_interval = 10, 2;

return function (lib)
	local Feed, xmlns_feed, escape, is_name = lib.Feed, lib.xmlns, lib.escape, lib.is_name;

	-- The component's session, if it is connected.
	function Feed:component_session()
		local host = prosody.hosts[self.settings.component];
		local component = host and host.modules and host.modules.component;
		return component and component.connected and component.session or nil;
	end

	-- Looks whether there is another connection than the one known, and greets it.
	function Feed:watch()
		local session = self:component_session();
		if session == self.link then
			return;
		end
		if self.link then
			self:status("warn", "The component is gone, %d events are kept", self.ring:count());
		end
		self.link, self.ready, self.greeted = session, false, nil;
		if session then
			self:hello();
		end
	end

	-- For the log, and for "prosodyctl shell module info event_feed".
	function Feed:status(level, message, ...) -- luacheck: ignore 212/self
		module:log(level, message, ...);
		module:set_status(level, message:format(...));
	end

	-- Says hello from the host that was answered last, and then from each in turn.
	function Feed:hello()
		self.hellos = (self.hellos or 0) + 1; -- ends the round before this one
		local hosts, speaker, first = self:host_names(), self:speaker(), 1;
		for i = 1, #hosts do
			if hosts[i] == speaker then
				first = i;
			end
		end
		self.ready, self.greeted = false, self:host_list();
		self:hello_from(hosts, first, 1);
	end

	-- count says how many hellos this is since the round began.
	function Feed:hello_from(hosts, index, count)
		local link, host = self.link, hosts[index];
		if not link or link.destroyed or not host then
			return;
		end
		local ring, previous = self.ring, "";
		if self.previous then
			previous = " prev-epoch='"..escape(self.previous).."'"..
				(self.previous_last and " prev-last='"..self.previous_last.."'" or "")..
				" clean='"..(self.clean and "true" or "false").."'";
		end
		link.send(self:element(host, "hello").." first='"..ring.first.."' next='"..ring.next..
			"' hosts='"..escape(self.greeted).."' server='"..escape("Prosody "..prosody.version..", mod_event_feed "..lib.revision).."' token='true'"..
			previous.."/></message>");
		local this = self.hellos;
		module:add_timer(count < #hosts and first_hello_interval or hello_interval, function ()
			if self.hellos ~= this or self.link ~= link or self.ready then
				return;
			end
			if count >= #hosts then
				self:complain("hello", "warn", "The component has not answered hello from any host; "
					.."does it serve one of %s, and know the event-feed protocol?", self.greeted);
			end
			self:guard("hello", self.hello_from, self, hosts, index % #hosts + 1, count + 1);
		end);
	end

	-- The hosts have changed: the component is told, once they are all there.
	function Feed:hosts_changed()
		if self.hosts_pending then
			return;
		end
		self.hosts_pending = true;
		module:add_timer(0, function ()
			self.hosts_pending = false;
			if self.link and self.greeted ~= self:host_list() then
				self:guard("hello", self.hello, self);
			end
		end);
	end

	-- A number as the protocol has them, or nil.
	local function number(text)
		local value = text and s_find(text, "^%d+$") and tonumber(text);
		return value and math_type(value) == "integer" and value or nil;
	end

	local answers = {};

	function answers.resume(feed, attr, host)
		local ring, restored, token = feed.ring, feed.restored, attr.token;
		if token and not is_name(token) then
			return false;
		end
		feed.answered = host;
		feed.token = token and " token='"..escape(token).."'" or "";
		local seq = attr.epoch == feed.epoch and number(attr.seq) or nil;
		feed.restored = false;
		if seq and seq >= ring.next or not seq and restored and feed.acked > 0 then
			-- It has more of this epoch than there is, or will not say how much though it
			-- has acknowledged some: Prosody's data were set back, by a backup for example.
			-- Numbers must not be given twice.
			feed:status("warn", "Of epoch %s, up to %d here, the component has more or nothing: a new epoch begins",
				feed.epoch, ring.next - 1);
			feed:begin(feed.epoch, nil, false);
			feed:save_running();
			feed:hello();
		elseif seq then
			feed:free(seq);
			feed:status("info", "The component has epoch %s up to %d; %d events follow",
				feed.epoch, seq, ring.next - 1 - seq);
			feed:rewind(seq);
		else
			feed:status("info", "The component has nothing of epoch %s; %d events are sent", feed.epoch, ring:count());
			feed:rewind(feed.acked); -- what is missing since then is announced as lost
		end
		return true;
	end

	function answers.ack(feed, attr)
		local seq = number(attr.seq);
		if attr.epoch ~= feed.epoch or not seq or seq >= feed.ring.next then
			return false;
		end
		if seq <= feed.sent then -- else a resume has overtaken it; the next ack says the same
			feed:free(seq);
			feed:pump();
		end
		return true;
	end

	function answers.snapshot(feed, attr)
		local id = attr.id;
		if not feed.ready or not id or id == "" or #id > 128 then
			return false;
		end
		feed:begin_snapshot(id);
		return true;
	end

	-- Whether a message to one of our hosts is the component's own: of its live
	-- session, not merely under its name.
	function Feed:is_component(event)
		local origin, attr = event.origin, event.stanza.attr;
		return origin.type == "component" and origin == self:component_session() and
			attr.from == self.settings.component and attr.type ~= "error";
	end

	-- Handles a message to a host. Returns true when it was for us; anybody
	-- else's goes its way like any other message.
	function Feed:control(event, host)
		local tag = event.stanza.tags[1];
		if not tag or tag.attr.xmlns ~= xmlns_feed then
			return nil;
		end
		if not self:is_component(event) then
			self.counts.ignored = self.counts.ignored + 1;
			self:complain("foreign", "warn",
				"Somebody who is not the component sends control messages; they are ignored");
			return nil;
		end
		self:watch(); -- should the connection have escaped us so far
		local answer = tag.attr.source == self.settings.source and answers[tag.name];
		if not (answer and self:guard("a control message", answer, self, tag.attr, host)) then
			self.counts.ignored = self.counts.ignored + 1;
			self:complain("control", "warn",
				"The component has sent a control message that does not fit: %s for source %s, epoch %s, number %s",
				tag.name, tag.attr.source, tag.attr.epoch, tag.attr.seq);
		end
		return true;
	end
end
