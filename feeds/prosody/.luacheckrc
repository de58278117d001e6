-- "luacheck ." here; Prosody gives its modules these two.
std = "lua54"
globals = { "module", "prosody" }
