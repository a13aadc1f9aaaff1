-- One caller in Lua, for bench_engine.c: each line of standard input is a round's length in seconds, each line of
-- standard output that round's calls per second. DATABASE_URL names the server.
local weir = require "weir"

local db = weir.open {
    name = "bench",
    backends = { primary = assert(os.getenv "DATABASE_URL", "DATABASE_URL is not set") },
    clients = { service = { max = 1, bypass_rls = true } },
}
local service = db:service()

local function call()
    local rows, err = service:query("bench", "SELECT 1")
    if not rows then error(tostring(err)) end
end

local function round(seconds)
    local from, calls = weir.now(), 0
    repeat
        for _ = 1, 100 do call() end
        calls = calls + 100
    until weir.now() - from >= seconds
    return calls / (weir.now() - from)
end

for line in io.lines() do
    print(string.format("%.1f", round(tonumber(line))))
    io.stdout:flush()
end
db:close()
