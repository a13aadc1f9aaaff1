-- What the nginx tests share: a PostgreSQL per file, an nginx of their own per test, requests, wrk, and looking at workers.

local json = require "weir.json"
local socket = require "socket"
local testing = require "weir.testing"
local unix = require "socket.unix"

local fixture = {}

local build = assert(os.getenv "WEIR_BUILD_DIR")

-- ---- small things ---------------------------------------------------------------------------------------------

function fixture.sh(command, ...)
    local pipe = io.popen(command:format(...) .. " 2>&1")
    local output = pipe:read "a"
    local _, _, code = pipe:close()
    return output, code
end
local sh = fixture.sh

function fixture.read(path)
    local file = io.open(path, "rb")
    if not file then return "" end
    local text = file:read "a"
    file:close()
    return text
end

function fixture.write(path, text)
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
end

--- Asks again until it holds, for at most `seconds` (10); what was last answered.
function fixture.eventually(condition, seconds)
    local deadline = socket.gettime() + (seconds or 10)
    local answer = condition()
    while not answer and socket.gettime() < deadline do
        socket.sleep(0.02)
        answer = condition()
    end
    return answer
end

local function free_port()
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    server:close()
    return port
end

-- ---- PostgreSQL -------------------------------------------------------------------------------------------------

local schema = [[
    create role web_anon nologin;
    create role app_anon login noinherit in role web_anon;
    create role app_service login bypassrls;
    create table notes (id int, owner text not null, text text);
    alter table notes enable row level security;
    create policy own on notes
        using (owner = nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub');
    create table log (line text);
    grant all on notes, log to web_anon, app_service;
]]

local server

--- The file's server; it ends with the process.
function fixture.server()
    if not server then
        server = assert(testing.postgres { settings = { max_connections = 60 } })
        assert(server:sql(schema))
        assert(server:sql "checkpoint")
    end
    return server
end

--- What psql says to a query, without its frame.
function fixture.ask(query)
    return (assert(fixture.server():sql(query)):gsub("%s+$", ""))
end

--- A policy file's text; `more` is Lua put into the table.
function fixture.policy(more)
    return ([[return {
        name = "test",
        backends = { primary = %q },
        clients = {
            anon = { user = "app_anon", role = "web_anon", max = 8, queue_max = 10000 },
            service = { user = "app_service", bypass_rls = true, max = 8, queue_max = 10000 },
        },
        timeout = 5,
        %s
    }]]):format(fixture.server():url(), more or "")
end

-- ---- nginx --------------------------------------------------------------------------------------------------------

local configuration = [[
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
load_module @BUILD@/ngx_http_weir_module.so;
user root;
daemon @DAEMON@;
worker_processes @WORKERS@;
pid @FOLDER@/pid;
error_log @FOLDER@/error.log @LEVEL@;
@MAIN@
events { worker_connections @CONNECTIONS@; }
http {
    access_log off;
    client_body_temp_path @FOLDER@/t1; proxy_temp_path @FOLDER@/t2; fastcgi_temp_path @FOLDER@/t3;
    uwsgi_temp_path @FOLDER@/t4; scgi_temp_path @FOLDER@/t5;
    keepalive_requests 10000000;
    weir_area @FOLDER@/area 16m;
    weir_policy @FOLDER@/policy.lua;
    @HTTP@
    server {
        listen unix:@FOLDER@/http;
        listen 127.0.0.1:@PORT@ reuseport;
        location /weir/ { weir_status; }
        @SERVER@
    }
}
]]

local Nginx = {}
Nginx.__index = Nginx

local running = {} -- those that a test has not stopped

--- Makes the folder with its configuration; spec: workers (0: no master, one process), main, http, server (these three may
-- say @FOLDER@), policy, level, connections, daemon ("on": nginx takes a USR2 only then).
function fixture.prepare(spec)
    local self = setmetatable({ port = free_port() }, Nginx)
    self.folder = sh "mktemp -d":gsub("%s+$", "")
    local values = {
        BUILD = build, FOLDER = self.folder, WORKERS = spec.workers or 2, LEVEL = spec.level or "notice",
        HTTP = spec.http or "", SERVER = spec.server or "", PORT = self.port, CONNECTIONS = spec.connections or 20000,
        DAEMON = spec.daemon or "off",
        MAIN = (spec.main or "") .. (spec.workers == 0 and " master_process off;" or ""),
    }
    fixture.write(self.folder .. "/nginx.conf", (configuration:gsub("@(%u+)@", values):gsub("@(%u+)@", values)))
    fixture.write(self.folder .. "/policy.lua", spec.policy or fixture.policy())
    return self
end

--- Starts what was prepared, and waits until all workers have opened their engines.
function fixture.run(self, workers)
    os.execute(("$(command -v nginx) -p %s -c %s/nginx.conf >%s/said 2>&1 &"):format(self.folder, self.folder, self.folder))
    running[self] = true
    local up = fixture.eventually(function()
        local status = self:get "/weir/health"
        return status and #self:workers() == workers
    end)
    if not up then error("nginx did not start: " .. fixture.read(self.folder .. "/said") .. self:log()) end
    return self
end

--- Prepares and runs.
function fixture.start(spec)
    return fixture.run(fixture.prepare(spec), spec.workers or 2)
end

--- `nginx -t`: what it says, and whether the configuration is good.
function Nginx:test()
    local said, code = sh("nginx -p %s -c %s/nginx.conf -t", self.folder, self.folder)
    return said, code == 0
end

function Nginx:log()
    return fixture.read(self.folder .. "/error.log")
end

--- Lines of the error log at alert or worse, but for those that hold one of `expected`.
function Nginx:alerts(...)
    local found = {}
    for line in self:log():gmatch "[^\n]+" do
        local bad = line:find "%[alert%]" or line:find "%[emerg%]" or line:find "%[crit%]"
        for _, expected in ipairs { ... } do bad = bad and not line:find(expected) end
        if bad then found[#found + 1] = line end
    end
    return table.concat(found, "\n")
end

function Nginx:master()
    return fixture.read(self.folder .. "/pid"):match "%d+"
end

--- Pids of the workers that serve, those that are leaving left out.
function Nginx:workers()
    local pids = {}
    for pid, line in sh("ps -o pid=,args= --ppid %s", self:master() or "0"):gmatch "(%d+) ([^\n]+)" do
        if not line:find "shutting down" and line:find "worker process" then pids[#pids + 1] = pid end
    end
    return pids
end

--- How many processes there are beside the master.
function Nginx:children()
    return select(2, sh("ps -o pid= --ppid %s", self:master() or "0"):gsub("%d+", ""))
end

function Nginx:signal(name)
    sh("kill -%s %s", name, self:master())
end

--- Stops what a test that failed has left behind.
function fixture.stop_all()
    for nginx in pairs(running) do nginx:stop() end
end

--- Ends it in order; error if it stays.
function Nginx:stop()
    running[self] = nil
    local master = self:master()
    if master then
        sh("kill -QUIT %s", master)
        local gone = fixture.eventually(function() return not io.open(self.folder .. "/pid") end, 30)
        if not gone then sh("pkill -9 -f %s", self.folder) error("nginx did not stop: " .. self:log()) end
    end
    sh("rm -rf %s", self.folder)
end

-- ---- requests -------------------------------------------------------------------------------------------------------

--- A connection to it.
function Nginx:connect()
    local client = assert(unix())
    if not client:connect(self.folder .. "/http") then
        client:close()
        return nil
    end
    client:settimeout(30)
    return client
end

--- One request: status, body, headers (names in lower case); nil if there is no whole answer.
function Nginx:request(method, path, headers, body)
    local client = self:connect()
    if not client then return nil end
    local lines = { ("%s %s HTTP/1.1"):format(method, path), "Host: test", "Connection: close" }
    for name, value in pairs(headers or {}) do lines[#lines + 1] = name .. ": " .. value end
    if body then lines[#lines + 1] = "Content-Length: " .. #body end
    client:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or ""))
    local answer = client:receive "*a"
    client:close()
    return fixture.parse(answer)
end

function fixture.parse(answer)
    local head, text = (answer or ""):match "^(.-\r\n)\r\n(.*)$"
    if not head then return nil end
    local headers = {}
    for name, value in head:gmatch "\n([^:]+): ([^\r]*)" do headers[name:lower()] = value end
    if headers["transfer-encoding"] == "chunked" then
        local parts, at = {}, 1
        while true do
            local size, from = text:match("^(%x+)\r\n()", at)
            if not size or tonumber(size, 16) == 0 then break end
            parts[#parts + 1] = text:sub(from, from + tonumber(size, 16) - 1)
            at = from + tonumber(size, 16) + 2
        end
        text = table.concat(parts)
    end
    return tonumber(head:match "^HTTP/1.1 (%d+)"), text, headers
end

function Nginx:get(path, headers)
    return self:request("GET", path, headers)
end

--- A status document as a table.
function Nginx:document(name)
    local _, body = self:get("/weir/" .. name)
    return json.decode(body)
end

--- The sum of a metric's samples whose labels hold `with`.
function Nginx:metric(name, with)
    local _, body = self:get "/weir/metrics"
    local sum, found = 0, false
    for labels, value in (body or ""):gmatch("\n" .. name .. "(%b{}) ([%d.e+-]+)") do
        if not with or labels:find(with, 1, true) then sum, found = sum + tonumber(value), true end
    end
    return found and sum or nil
end

-- ---- load -----------------------------------------------------------------------------------------------------------

local wrk_script = [[
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() statuses, without_retry_after, slowest_refusal = {}, 0, 0 end
function response(status, headers)
    statuses[status] = (statuses[status] or 0) + 1
    if status == 503 and not headers["Retry-After"] then without_retry_after = without_retry_after + 1 end
end
function done(summary, latency)
    local sums, lost = {}, 0
    for _, thread in ipairs(threads) do
        for status, count in pairs(thread:get "statuses") do sums[status] = (sums[status] or 0) + count end
        lost = lost + thread:get "without_retry_after"
    end
    for status, count in pairs(sums) do print(("status %d %d"):format(status, count)) end
    print("bare503 " .. lost)
    print("slowest " .. latency.max / 1e6)
    local e = summary.errors
    print(("errors %d %d %d %d"):format(e.connect, e.read, e.write, e.timeout))
end
]]

--- Starts wrk in the background; the function that is returned waits for its end: statuses by number, bare503, slowest
-- (seconds), errors (connect, read, write, timeout).
function Nginx:wrk(path, connections, seconds)
    fixture.write(self.folder .. "/wrk.lua", wrk_script)
    local output = ("%s/wrk.%d"):format(self.folder, math.random(1 << 30))
    os.execute(("{ wrk -t1 -c%d -d%ds --timeout 20s -s %s/wrk.lua http://127.0.0.1:%d%s; echo ended; } >%s 2>&1 &"):format(
        connections, seconds, self.folder, self.port, path, output))
    return function()
        local text = fixture.eventually(function()
            local said = fixture.read(output)
            return said:find "ended" and said
        end, seconds + 40)
        local result = { statuses = {}, text = text }
        for status, count in text:gmatch "status (%d+) (%d+)" do result.statuses[tonumber(status)] = tonumber(count) end
        result.bare503 = tonumber(text:match "bare503 (%d+)")
        result.slowest = tonumber(text:match "slowest ([%d.]+)")
        local connect, read, write, timeout = text:match "errors (%d+) (%d+) (%d+) (%d+)"
        result.errors = { connect = tonumber(connect), read = tonumber(read), write = tonumber(write), timeout = tonumber(timeout) }
        return result
    end
end

-- ---- looking at workers -----------------------------------------------------------------------------------------------

--- Resident kilobytes and open descriptors of a process.
function fixture.usage(pid)
    local rss = tonumber(fixture.read(("/proc/%s/status"):format(pid)):match "VmRSS:%s+(%d+)")
    return rss, tonumber((sh("ls /proc/%s/fd | wc -l", pid)))
end

--- Sessions of the test's logins on the server.
function fixture.sessions(where)
    return tonumber(fixture.ask("select count(*) from pg_stat_activity where usename like 'app_%' " .. (where or "")))
end

return fixture
