--- What it costs an engine to be looked at, and how soon the console answers beside a busy one.
--
--     build/weir run tests/bench/bench_console.lua [ROUNDS] [SECONDS]
--
-- attached   SELECT 1 by 32 tasks over a pool of 8, in rounds of SECONDS (2), every other one with `weir top` (its
--            figures written once a second) on the engine's area. The ratio of the two, of calls a second and of
--            this process's CPU a call, is the median over ROUNDS (15) pairs of rounds, in changing order. On two
--            cores `weir top` takes its own time from somebody: the CPU tells what the engine pays.
-- prompt     a session of `weir repl` on a pseudo-terminal, with the same load in its own process: milliseconds
--            from the Enter key to the answer, and the 99th percentile of the calls without and with somebody
--            who types.
--
-- WEIR_BIN is the command, build/weir by default. Needs PostgreSQL's programs.

local weir = require "weir"
local testing = require "weir.testing"

local bin = os.getenv "WEIR_BIN" or "build/weir"
local rounds, seconds = tonumber(arg[1]) or 15, tonumber(arg[2]) or 2
local TASKS, ASKED = 32, 60

local server = assert(testing.postgres { name = "bench" })
local conninfo = ("host=%s port=%d dbname=postgres user=postgres"):format(server.dir, server.port)
local area = os.tmpname()
os.remove(area)

local function median(values)
    table.sort(values)
    return values[(#values + 1) // 2]
end

-- ---- attached -------------------------------------------------------------------------------------------------

local db = assert(weir.open {
    name = "bench", area = area, backends = { primary = conninfo },
    clients = { service = { max = 8, bypass_rls = true } },
})
local calls, over, tasks = 0, false, {}

for i = 1, TASKS do
    tasks[i] = weir.spawn(function()
        while not over do
            assert(db:service():query("bench", "SELECT 1"))
            calls = calls + 1
        end
    end)
end

local function round(watched)
    local top = watched and assert(io.popen(("exec %s top --area %s -b -n 100000 >/dev/null"):format(bin, area), "w"))
    weir.sleep(0.3)
    local from, cpu, before = weir.now(), os.clock(), calls
    weir.sleep(seconds)
    local done = calls - before
    local figures = { rate = done / (weir.now() - from), cpu = (os.clock() - cpu) / done }
    if top then
        os.execute(("pkill -TERM -f 'top --area %s'"):format(area))
        top:close()
    end
    return figures
end

local function attached()
    local rate, cpu = {}, {}
    for i = 1, rounds do
        local first = round(i % 2 == 0)
        local second = round(i % 2 == 1)
        local with, without = second, first
        if i % 2 == 0 then with, without = first, second end
        rate[i], cpu[i] = with.rate / without.rate, with.cpu / without.cpu
    end
    print(("attached: calls/s %.3f, CPU a call %.3f of what they are without `weir top`"):format(
        median(rate), median(cpu)))
end

-- ---- the prompt -----------------------------------------------------------------------------------------------

local policy = [[
local weir = require "weir"
local db = assert(weir.open {
    name = "bench", backends = { primary = %q }, clients = { service = { max = 8, bypass_rls = true } },
})
local took = {}
for _ = 1, %d do
    weir.spawn(function()
        while true do
            local from = weir.now()
            assert(db:service():query("bench", "SELECT 1"))
            took[#took + 1] = weir.now() - from
        end
    end)
end
function p99()
    table.sort(took)
    local value = took[math.ceil(#took * 0.99)]
    took = {}
    return ("p99 is %%.3f ms"):format(value * 1000)
end
return db
]]

local function write(path, text)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
end

local function read(path)
    local file = io.open(path, "rb")
    local text = file and file:read "a" or ""
    if file then file:close() end
    return text
end

local function wait_for(path, pattern, from)
    local till = weir.now() + 20
    repeat
        local found = read(path):match(pattern, from)
        if found then return found end
        weir.sleep(0.0005)
    until weir.now() > till
    error("the session does not answer: " .. read(path))
end

local function prompt()
    local file, drawn = os.tmpname(), os.tmpname()
    write(file, policy:format(conninfo, TASKS))
    local session = assert(io.popen(("WEIR_HISTORY= TERM=dumb script -qfec '%s repl %s' /dev/null >%s 2>&1"):format(bin,
        file, drawn), "w"))
    session:setvbuf "no"
    wait_for(drawn, "bench> ")
    weir.sleep(1)
    session:write "p99()\r"
    wait_for(drawn, "p99 is [%d.]+ ms")
    weir.sleep(3)
    local from = #read(drawn)
    session:write "p99()\r"
    local quiet = wait_for(drawn, "p99 is ([%d.]+) ms", from)
    local answers = {}
    for i = 1, ASKED do
        local asked, at = weir.now(), #read(drawn)
        session:write(("%d + %d\r"):format(1000000 + i, 1000000))
        wait_for(drawn, ("\n(%d)"):format(2000000 + i), at)
        answers[i] = (weir.now() - asked) * 1000
        weir.sleep(0.02)
    end
    from = #read(drawn)
    session:write "p99()\r"
    local busy = wait_for(drawn, "p99 is ([%d.]+) ms", from)
    session:write "os.exit(0)\r"
    session:close()
    os.remove(file)
    os.remove(drawn)
    table.sort(answers)
    print(("prompt: answers after %.1f ms (median), %.1f ms (slowest of %d); p99 of the calls %s ms, while typing "
        .. "%s ms"):format(median(answers), answers[#answers], ASKED, quiet, busy))
end

attached()
over = true
weir.gather(tasks)
db:close()
prompt()
server:close()
os.remove(area)
os.exit(0)
