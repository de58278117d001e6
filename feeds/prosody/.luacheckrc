std = "lua54"
read_globals = { "prosody" }
globals = { "module" }
