-- The answer to a snapshot: one event for each session that is bound. The
-- events join the sequence only as fast as they leave, so that a snapshot of a
-- large server never drops others out of the ring.

local full_sessions = prosody.full_sessions;
local s_format = string.format;
local math_ceil, math_min, pairs = math.ceil, math.min, pairs;

-- As many events of a snapshot wait to be sent at most, and never more than a
-- quarter of what the ring holds.
local batch_sessions = 64;

return function (lib)
	local Feed, escape = lib.Feed, lib.escape;

	-- Calls f for each bound session of our virtual hosts. f may end sessions.
	function Feed:each_session(f)
		local all, n = {}, 0;
		for host, kind in pairs(self.hosts) do
			local users = kind == "local" and prosody.hosts[host] and prosody.hosts[host].sessions;
			for _, user in pairs(users or {}) do
				for _, session in pairs(user.sessions) do
					n = n + 1;
					all[n] = session;
				end
			end
		end
		for i = 1, n do
			f(all[i]);
		end
	end

	function Feed:begin_snapshot(id)
		local list = {};
		self:each_session(function (session)
			list[#list + 1] = session.full_jid;
		end);
		self.snapshot_list, self.snapshot_done, self.snapshot_count = list, 0, 0;
		self.snapshot_id = " id='"..escape(id).."'";
		self:emit(self:speaker(), "snapshot-start", self.snapshot_id);
		self:pump();
	end

	-- Adds the next sessions if little else is waiting. A session that has ended
	-- meanwhile has said so; one that has begun, too.
	function Feed:continue_snapshot()
		local list, ring = self.snapshot_list, self.ring;
		local batch = math_min(batch_sessions, math_ceil(ring.max_events / 4));
		local room = batch - (ring.next - 1 - self.sent);
		if not list or room <= 0 then
			return;
		end
		local last = math_min(#list, self.snapshot_done + room);
		while self.snapshot_done < last do
			self.snapshot_done = self.snapshot_done + 1;
			local session = full_sessions[list[self.snapshot_done]];
			if session and self.hosts[session.host] then
				self.snapshot_count = self.snapshot_count + 1;
				self:emit(session.host, "snapshot", self.snapshot_id.." user='"..escape(session.full_jid).."'", session.presence);
			end
		end
		if last == #list then
			self:end_snapshot();
		end
	end

	function Feed:end_snapshot()
		self.snapshot_list = nil;
		self:emit(self:speaker(), "snapshot-end", self.snapshot_id..s_format(" count='%d'", self.snapshot_count));
	end
end
