--- The names that the console adds to Lua: what is seen and steered, each with its help and an example. One
-- list, from which come the functions, the `\` commands, the completion and help() itself.

local listing = require "weir.listing"

local names = {}

--- Name, how it is called, what it does, an example. In the order in which help() tells them.
names.list = {
    { "pools", "pools()", "each pool: breaker, connections, waiting calls, rates, latencies", "pools()" },
    { "pool", "pool(name)", "one row of pools(); the name may be cut short", 'pool "anon".used' },
    { "breaker", "breaker(name)", "a pool's breaker: counts, rates, evidence, retry_after",
        'breaker("anon").evidence' },
    { "why", "why(name)", "why a pool is as it is: its last moves, refusals, and what comes next; or a call's timeline",
        'why "anon@primary"' },
    { "labels", "labels()", "each label in each pool, the one that took most time first", "labels()" },
    { "calls", "calls{label=, pool=, code=, failed=, slower=, worker=, last=20}",
        "the last calls, newest first",
        "calls{ failed = true, last = 5 }" },
    { "call", "call(id)", "one call's timeline", 'call "10000000001"' },
    { "events", "events{kind=, pool=, worker=, after=, last=20}", "the event log, oldest first",
        'events{ kind = "breaker" }' },
    { "workers", "workers()", "each worker that lives", "workers()" },
    { "conns", "conns{pool=, state=, worker=}", "connections one by one, 64 of each worker at most",
        'conns{ state = "leased" }' },
    { "stats", "stats()", "all figures, as a table", "stats().pools[1].calls" },
    { "config", "config()", "the options in force", "config().breaker" },
    { "show", "show(what)", 'PgBouncer\'s tables: "pools", "clients", "servers", "stats", "config", "version"',
        'show "pools"' },
    { "explain", "explain(file)", "what the policy of a file does, measured by running it in simulations",
        'explain "policy.lua"' },
    { "pause", "pause([pool [, reason]])", "calls are refused; connections stay", 'pause "anon@primary"' },
    { "drain", "drain([pool [, reason]])", "the same, and connections are closed as they get free",
        "drain()" },
    { "resume", "resume([pool])", "ends both", "resume()" },
    { "resize", "resize(pool, max [, reason])", "connections over all workers; nil: as configured",
        'resize("anon@primary", 16)' },
    { "reconnect", "reconnect([pool])", "connections are closed as they get free, new ones opened as needed",
        "reconnect()" },
    { "force", "force(pool, state [, seconds [, reason]])",
        'breaker "open", "closed", "disabled", "metrics_only"',
        'force("anon@primary", "open", 300, "maintenance")' },
    { "reset", "reset([pool])", "breaker back to normal, with a fresh window", 'reset "anon@primary"' },
    { "reload", "reload(file)", "a new policy for all workers; with a mistake in it the old one stays",
        'reload "policy.lua"' },
    { "kill", "kill(id)", "ends a running call; its id stands in conns()", 'kill "10000000001"' },
    { "watch", "watch(seconds, fn or command)", "shows it again and again until Ctrl-C", "watch(1, pools)" },
    { "help", "help([name])", "this list, or one name", 'help "force"' },
}

names.known = {}
for _, entry in ipairs(names.list) do names.known[entry[1]] = entry end

--- Names beside them that are values and not functions.
names.values = {
    { "view", "what all of them are methods of; see weir.attach" },
    { "db", "the engine of this process, where there is one" },
    { "weir", "the module" },
}

local Help = { __name = "weir.help" }
Help.__index = Help

function Help:__tostring()
    return table.concat(self, "\n")
end

local grammar = {
    "",
    "Lua as it is: an expression prints its value (= before it does no harm), a statement runs, and a line that is not",
    "finished goes on in the next. \\NAME WORDS is the short form of each: \\pools, \\why anon, \\calls failed last 5,",
    "\\breaker anon open for 5m, \\resize anon 16, \\watch 1 pools. ?NAME is help. Ctrl-C ends what runs, Ctrl-D the session.",
}

local function one(name)
    local entry = names.known[name]
    if not entry then return nil end
    return setmetatable({ entry[2], "  " .. entry[3], "  example: " .. entry[4] }, Help)
end

--- help() and help(name).
function names.help(name)
    if name ~= nil and name ~= "" then
        return one(tostring(name)) or setmetatable({ ("there is no help for %s; help() lists what there is"):format(
            listing.printable(name)) }, Help)
    end
    local said = setmetatable({}, Help)
    for _, entry in ipairs(names.list) do
        said[#said + 1] = ("%-34s %s"):format(entry[4], entry[3])
    end
    for _, entry in ipairs(names.values) do said[#said + 1] = ("%-34s %s"):format(entry[1], entry[2]) end
    for _, line in ipairs(grammar) do said[#said + 1] = line end
    return said
end

return names
