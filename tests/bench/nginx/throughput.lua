--- Throughput side by side: Weir in nginx against a driver over cosockets, in one run on one machine.
--
--     lua5.4 tests/bench/nginx/throughput.lua [--seconds N] [--rounds N] [--connections N] [VARIANT...]
--
-- Variants: hello (no database), cosocket (the baseline: cosocket.lua, a keepalive pool of 64), weir (a
-- pool of 8), multiplex (64 calls share one connection), multiplex-2 (two connections). All of them by
-- default; one that this build does not know is skipped, and says why. Each is run with SELECT 1 and with
-- 10 rows of 5 columns, for 10 seconds, in 3 rounds, every other one in reverse. WEIR_BUILD_DIR is where
-- the module was built, build/ by default.
--
-- nginx has one worker, and starts afresh for each run; wrk drives it with one thread and 64 connections,
-- for a second before anything is counted. PostgreSQL is reached over a Unix socket. CPU is what the worker
-- (with its threads), all of PostgreSQL's processes, or these two and wrk spent meanwhile, in microseconds
-- per request. On one machine the last bounds the rate. A figure is the median of its rounds; a ratio is
-- the median of the ratios to the baseline in the same round. On a machine that has other work to do the
-- rates say little, since the more processes a variant keeps busy, the larger is its share; the CPU columns
-- still do.
--
-- Needs nginx with ngx_lua, PostgreSQL's programs, wrk, lua5.4 with lua-socket. Everything lives in a
-- private directory and is gone when this process is, however it ends.

local function output_of(command)
    local pipe = assert(io.popen(command))
    local text = pipe:read "a"
    local ok, _, code = pipe:close()
    return text, ok, code
end

local function folder_of(path)
    return output_of("cd '" .. (path:match "^(.*)/[^/]*$" or ".") .. "' && pwd -P"):match "[^\n]+"
end

local here = folder_of(arg[0])
local source = here:match "^(.*)/tests/bench/nginx$"
package.path = source .. "/lua/?.lua;" .. source .. "/lua/?/init.lua;" .. package.path

local socket = require "socket"
local testing = require "weir.testing"

local build = os.getenv "WEIR_BUILD_DIR" or source .. "/build"

local BASELINE = "cosocket"
local variants = { "hello", BASELINE, "weir", "multiplex", "multiplex-2" }
local texts = { one = "SELECT 1", ten = "10 rows" }
local expected = { hello = "hello", one = "1", ten = "row 10, with a text that is forty bytes long" }

local rows = [[
create table t10 (id int, name text, score float8, active bool, note text);
insert into t10 select i, 'name ' || i, i * 1.5, i % 2 = 0,
        'row ' || i || ', with a text that is forty bytes long'
    from generate_series(1, 10) i;
vacuum analyze t10;
]]

-- ---- small things -----------------------------------------------------------------------------------------

local function read(path)
    local file = io.open(path)
    if not file then return nil end
    local text = file:read "a"
    file:close()
    return text
end

local function write(path, text)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
end

local function await(seconds, what, condition)
    for _ = 1, seconds * 200 do
        local value = condition()
        if value then return value end
        socket.sleep(0.005)
    end
    error(what, 0)
end

local function median(values)
    local sorted = table.move(values, 1, #values, 1, {})
    table.sort(sorted)
    local half = #sorted // 2
    if #sorted == 0 then return nil end
    return #sorted % 2 == 1 and sorted[half + 1] or (sorted[half] + sorted[half + 1]) / 2
end

-- ---- nginx ------------------------------------------------------------------------------------------------

-- The parent of nginx and the keeper of the directory. It reads the pipe that only we hold, so it hears of
-- our end.
local guardian = [[
trap '' INT HUP TERM PIPE
folder=%s nginx=
stop() { [ -z "$nginx" ] || { kill -s "$1" "$nginx" 2>/dev/null; wait "$nginx"; nginx=; }; }
while read -r verb; do
    case $verb in
    start)
        setsid nginx -p "$folder" -c "$folder/nginx.conf" >"$folder/said" 2>&1 &
        nginx=$!
        ;;
    stop) stop QUIT; : >"$folder/stopped" ;;
    esac
done
stop TERM
rm -rf "$folder"
]]

local configuration = [[
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
@MODULE@
@USER@
daemon off;
worker_processes 1;
pid @FOLDER@/pid;
error_log @FOLDER@/error.log warn;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path @FOLDER@/t1; proxy_temp_path @FOLDER@/t2; fastcgi_temp_path @FOLDER@/t3;
    uwsgi_temp_path @FOLDER@/t4; scgi_temp_path @FOLDER@/t5;
    lua_package_path "@HERE@/?.lua;;";
    init_by_lua_block {
        local handlers = require "handlers"
        handlers.server = {
            conninfo = "@CONNINFO@", path = "@SOCKET@", user = "postgres", database = "postgres",
            pool = { pool_size = 64 },
        }
    }
    server {
        listen 127.0.0.1:@PORT@;
        location /hello { content_by_lua_block { require("handlers").hello() } }
@LOCATIONS@
    }
}
]]

local function locations()
    local lines = {}
    for name in pairs(texts) do
        local location = 'location /%s/%s { content_by_lua_block { require("handlers").%s } }'
        lines[#lines + 1] = location:format(BASELINE, name, ("cosocket %q"):format(name))
        for _, variant in ipairs { "weir", "multiplex", "multiplex-2" } do
            lines[#lines + 1] = location:format(variant, name, ("weir(%q, %q)"):format(variant, name))
        end
    end
    return table.concat(lines, "\n")
end

local function free_port()
    local listener = assert(socket.bind("127.0.0.1", 0))
    local _, port = listener:getsockname()
    listener:close()
    return port
end

local Nginx = {}
Nginx.__index = Nginx

local function new_nginx(server)
    local folder = output_of "mktemp -d":match "[^\n]+"
    local self = setmetatable({ folder = folder, port = free_port() }, Nginx)
    self.guardian = assert(io.popen(guardian:format("'" .. folder .. "'"), "w"))
    local module = build .. "/ngx_http_weir_module.so"
    local path = ("%s/.s.PGSQL.%d"):format(server.dir, server.port)
    write(folder .. "/nginx.conf", (configuration:gsub("@(%u+)@", {
        FOLDER = folder, HERE = here, LOCATIONS = locations(), PORT = self.port,
        MODULE = read(module) and "load_module " .. module .. ";" or "", SOCKET = path,
        CONNINFO = ("host=%s port=%d dbname=postgres"):format(server.dir, server.port),
        USER = output_of "id -u":match "^0" and "user root;" or "", -- to whom PostgreSQL's directory is open
    })))
    return self
end

function Nginx:tell(verb)
    self.guardian:write(verb, "\n")
    self.guardian:flush()
end

function Nginx:get(path)
    local client = socket.tcp()
    client:settimeout(10)
    if not client:connect("127.0.0.1", self.port) then return nil end
    client:send(("GET %s HTTP/1.0\r\n\r\n"):format(path))
    local text, _, partial = client:receive "*a"
    client:close()
    return (text or partial):match "^HTTP/1.%d (%d+).-\r\n\r\n(.*)$"
end

function Nginx:complaints()
    return (read(self.folder .. "/said") or "") .. (read(self.folder .. "/error.log") or "")
end

function Nginx:start()
    os.remove(self.folder .. "/error.log")
    self:tell "start"
    local ok, why = pcall(await, 10, "nginx did not start", function()
        if self:complaints():find "%[emerg%]" then error("nginx does not start", 0) end
        return self:get "/hello"
    end)
    if not ok then error(why .. "\n" .. self:complaints(), 0) end
    local master = read(self.folder .. "/pid"):match "%d+"
    self.worker = read(("/proc/%s/task/%s/children"):format(master, master)):match "%d+"
end

function Nginx:stop()
    os.remove(self.folder .. "/stopped")
    self:tell "stop"
    await(60, "nginx does not stop", function() return read(self.folder .. "/stopped") end)
end

function Nginx:close()
    self.guardian:close() -- returns when it has cleaned up
end

-- ---- measuring --------------------------------------------------------------------------------------------

local TICKS = tonumber((output_of "getconf CLK_TCK"))

-- Seconds of CPU of a process, its threads, and its children that have ended; and those of them in the
-- kernel. "self" are we, and so is whatever we have started and waited for.
local function cpu_of(pid)
    local text = read("/proc/" .. pid .. "/stat") or ""
    local user, system, of_children, system_of_children = text:match(".*%) %a" .. (" %-?%d+"):rep(10)
        .. " (%d+) (%d+) (%d+) (%d+)")
    if not user then return 0, 0 end
    return (user + system + of_children + system_of_children) / TICKS, (system + system_of_children) / TICKS
end

local function cpu_of_server(postmaster)
    local sum = cpu_of(postmaster)
    for pid in read(("/proc/%d/task/%d/children"):format(postmaster, postmaster)):gmatch "%d+" do
        sum = sum + cpu_of(pid)
    end
    return sum
end

local units = { us = 0.001, ms = 1, s = 1000 }

local function milliseconds(text, percent)
    local value, unit = text:match("\n%s*" .. percent .. "%%%s+([%d.]+)(%a+)")
    return tonumber(value) * units[unit]
end

local function wrk(nginx, path, seconds, options)
    local command = "wrk -t1 -c%d -d%ds --latency http://127.0.0.1:%d%s 2>&1"
    local text, ok = output_of(command:format(options.connections, seconds, nginx.port, path))
    if not ok then error("wrk failed: " .. text, 0) end
    if text:find "Non%-2xx" or text:find "Socket errors" then
        error(path .. " is not answered as it should be:\n" .. text .. nginx:complaints(), 0)
    end
    return text
end

-- What has been spent so far, by whom.
local function spent(nginx, server)
    local worker, kernel = cpu_of(nginx.worker)
    local postgres = cpu_of_server(server.process)
    return { worker = worker, kernel = kernel, postgres = postgres, all = worker + postgres + cpu_of "self" }
end

local function measure(nginx, server, path, options)
    wrk(nginx, path, 1, options)
    local before = spent(nginx, server)
    local text = wrk(nginx, path, options.seconds, options)
    local after = spent(nginx, server)
    local requests, elapsed = text:match "(%d+) requests in ([%d.]+)s"
    local figures = { rate = requests / elapsed, p50 = milliseconds(text, 50), p99 = milliseconds(text, 99) }
    for who, seconds in pairs(after) do figures[who] = (seconds - before[who]) / requests * 1e6 end
    return figures
end

-- A run of one variant and query; nil and a reason if this build has no such variant.
local function run(nginx, server, case, options)
    nginx:start()
    local status, body = nginx:get(case.path)
    local figures
    if status == "200" and body == expected[case.query or "hello"] then
        figures = measure(nginx, server, case.path, options)
    elseif status == "200" then
        error(("%s gives %q"):format(case.path, body), 0)
    end
    nginx:stop()
    if figures then return figures end
    return nil, nginx:complaints():match "%[error%][^\n]*" or "HTTP status " .. tostring(status)
end

-- ---- the whole --------------------------------------------------------------------------------------------

local function list_cases(options)
    local cases = {}
    for _, variant in ipairs(options.variants) do
        if variant == "hello" then
            cases[#cases + 1] = { variant = variant, path = "/hello", rounds = {} }
        else
            for _, query in ipairs { "one", "ten" } do
                local path = ("/%s/%s"):format(variant, query)
                cases[#cases + 1] = { variant = variant, query = query, path = path, rounds = {} }
            end
        end
    end
    return cases
end

local function bench(nginx, server, options)
    local cases = list_cases(options)
    for round = 1, options.rounds do
        for i = 1, #cases do
            local case = cases[round % 2 == 1 and i or #cases + 1 - i]
            if not case.skipped then
                case.rounds[round], case.skipped = run(nginx, server, case, options)
                local figures = case.rounds[round]
                io.stderr:write(("round %d: %-18s %s\n"):format(round, case.path,
                    figures and ("%.0f req/s"):format(figures.rate) or "skipped: " .. case.skipped))
            end
        end
    end
    return cases
end

local function values_of(case, key)
    local values = {}
    for i, figures in ipairs(case.rounds) do values[i] = figures[key] end
    return values
end

local function ratio(case, base, key)
    local ratios = {}
    for i, figures in ipairs(case.rounds) do ratios[i] = figures[key] / base.rounds[i][key] end
    return median(ratios)
end

local columns = "%-11s %-8s %7s %16s %6s %6s %9s %8s %6s %7s %6s %9s %7s"

local function print_row(case, base)
    local rates = values_of(case, "rate")
    local function of(key, format) return (format or "%.1f"):format(median(values_of(case, key))) end
    local function against(key) return base and ("%.2f"):format(ratio(case, base, key)) or "" end
    local range = ("%.0f to %.0f"):format(math.min(table.unpack(rates)), math.max(table.unpack(rates)))
    print(columns:format(case.variant, texts[case.query] or "-", of("rate", "%.0f"), range,
        of("p50", "%.2f"), of("p99", "%.2f"), of "worker", of "kernel", of "postgres", of "all",
        against "rate", against "worker", against "all"))
end

local function print_table(cases)
    local base = {}
    for _, case in ipairs(cases) do
        if case.variant == BASELINE then base[case.query] = case end
    end
    print(("%70s %-32s %s"):format("", "CPU, us a request", "ratio to " .. BASELINE))
    print(columns:format("variant", "query", "req/s", "from, to", "p50 ms", "p99 ms", "nginx", "(kernel)",
        "PG", "all", "req/s", "nginx CPU", "all CPU"))
    for _, case in ipairs(cases) do
        if #case.rounds > 0 then print_row(case, base[case.query]) end
    end
end

local function usage(why)
    io.stderr:write(why, "\nusage: lua5.4 throughput.lua [--seconds N] [--rounds N] [--connections N] ",
        "[VARIANT...]\nvariants: ", table.concat(variants, " "), "\n")
    os.exit(2)
end

local function read_arguments()
    local options, i = { seconds = 10, rounds = 3, connections = 64, variants = {} }, 1
    local known = {}
    for _, variant in ipairs(variants) do known[variant] = true end
    while arg[i] do
        local name = arg[i]:match "^%-%-(%l+)$"
        if name and math.type(options[name]) == "integer" then
            i = i + 1
            options[name] = math.tointeger(tonumber(arg[i]))
            local good = options[name] and options[name] >= 1
            if not good then usage("--" .. name .. " needs a number, 1 or more") end
        elseif known[arg[i]] then
            options.variants[#options.variants + 1] = arg[i]
        else
            usage("unknown: " .. arg[i])
        end
        i = i + 1
    end
    if #options.variants == 0 then options.variants = variants end
    return options
end

local function main()
    local options = read_arguments()
    local server = assert(testing.postgres { name = "bench", settings = { max_connections = 200 } })
    assert(server:sql(rows))
    server.process = server:pid()
    local nginx = new_nginx(server)
    local ok, result = pcall(bench, nginx, server, options)
    nginx:close()
    server:close()
    if not ok then error(result, 0) end
    print_table(result)
end

local ok, why = pcall(main)
if not ok then
    io.stderr:write(tostring(why), "\n")
    os.exit(tostring(why):find "interrupted!" and 130 or 1)
end
