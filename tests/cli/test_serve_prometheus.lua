-- A real Prometheus scrapes `weir serve` through an outage of a real PostgreSQL and its recovery. When all is quiet again,
-- what it has stored is what the engine counted, and what the program itself counted, to the last call. WEIR_LONG=1: outage
-- after outage, for a minute.

local dashboard = require "dashboard"
local dkjson = require "dkjson"
local lu = require "luaunit"
local socket = require "socket"
local serving = require "serving"
local testing = require "weir.testing"

local TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"

local pg, server, prometheus

-- Calls until a file appears; then the program's own tally is written, and nothing happens any more.
local function policy(url, folder)
    return ([[
        local weir = require "weir"
        local folder, tally, working = %q, {}, 6
        local db = assert(weir.open { name = "scraped", backends = { primary = %q }, timeout = 0.5,
            clients = { service = { bypass_rls = true, max = 4 }, reports = { bypass_rls = true, max = 2 } },
            breaker = { min_calls = 5, open_for = 1 }, backoff = { base = 0.01 } })
        local function stopped()
            local file = io.open(folder .. "/stop")
            if file then file:close() end
            return file ~= nil
        end
        local function count(client, ok)
            local key = client .. (ok and " ok" or " not")
            tally[key] = (tally[key] or 0) + 1
        end
        local function work(task)
            local client = task %% 2 == 0 and "service" or "reports"
            while not stopped() do
                local handle = db:client(client):with { traceparent = %q }
                count(client, handle:query("GET /" .. task, "select 1") ~= nil)
                weir.sleep(0.01)
            end
            working = working - 1
            if working > 0 then return end
            local file = assert(io.open(folder .. "/tally", "w"))
            for key, value in pairs(tally) do file:write(key, " ", value, "\n") end
            file:close()
        end
        for task = 1, 6 do weir.spawn(work, task) end
        return db
    ]]):format(folder, url, ("00-%s-00f067aa0ba902b7-01"):format(TRACE))
end

-- ---- Prometheus ------------------------------------------------------------------------------------------------

local Prometheus = {}
Prometheus.__index = Prometheus

-- Free at this moment: Prometheus cannot be told to choose one and say which.
local function free_port()
    local listener = assert(socket.bind("127.0.0.1", 0))
    local _, port = listener:getsockname()
    listener:close()
    return tonumber(port)
end

local function start_prometheus(target)
    local self = setmetatable({ folder = serving.folder(), port = free_port() }, Prometheus)
    serving.write(self.folder .. "/prometheus.yml", ([[
global: { scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 1s }
rule_files: [ "%s/weir_rules.yml" ]
scrape_configs:
  - job_name: weir
    static_configs: [ { targets: [ "%s" ] } ]
]]):format(dashboard.rules_folder, target))
    os.execute(([[cd %s; prometheus --config.file=prometheus.yml --storage.tsdb.path=data --log.level=warn --enable-feature=exemplar-storage \
        --web.listen-address=127.0.0.1:%d >log 2>&1 </dev/null & echo $! >%s/pid]]):format(
        serving.quote(self.folder), self.port, serving.quote(self.folder)))
    self.pid = tonumber(serving.read(self.folder .. "/pid"))
    return self
end

function Prometheus:ask(path)
    local connection = socket.connect("127.0.0.1", self.port)
    if not connection then return nil end
    connection:settimeout(10)
    connection:send(("GET %s HTTP/1.0\r\n\r\n"):format(path))
    local answer = connection:receive "*a"
    connection:close()
    return answer and answer:match "^HTTP/1.. 200.-\r\n\r\n(.*)$"
end

-- Series of a query: labels in the given order joined by blanks -> value.
function Prometheus:query(query, ...)
    local escaped = query:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end)
    local body = self:ask("/api/v1/query?query=" .. escaped)
    local answer = body and dkjson.decode(body)
    if not answer or answer.status ~= "success" then return {} end
    local names, series = { ... }, {}
    for _, sample in ipairs(answer.data.result) do
        local key = {}
        for i, name in ipairs(names) do key[i] = sample.metric[name] end
        series[table.concat(key, " ")] = tonumber(sample.value[2])
    end
    return series
end

function Prometheus:stop()
    os.execute(("kill %d; while kill -0 %d 2>/dev/null; do sleep 0.05; done; rm -rf %s"):format(self.pid, self.pid,
        serving.quote(self.folder)))
end

-- ---- the run -----------------------------------------------------------------------------------------------------

TestPrometheus = {}

function TestPrometheus.setUp()
    pg = assert(testing.postgres { name = "scraped" })
    local folder = serving.folder()
    server = serving.serve(policy(pg:url(), folder))
    server.tally = folder
    prometheus = start_prometheus("127.0.0.1:" .. server.port)
end

function TestPrometheus.tearDown()
    prometheus:stop()
    lu.assertEquals(server:stop(), 0)
    os.execute("rm -rf " .. serving.quote(server.tally))
    pg:close()
end

local function wait_for(query, holds, what)
    serving.wait(function()
        local _, value = next(prometheus:query(query))
        return value and holds(value)
    end, what)
end

local function is_more_than(limit)
    return function(value) return value > limit end
end

local function outage_and_recovery()
    wait_for('sum(weir_calls_total{outcome="ok"})', is_more_than(100), "calls that Prometheus knows of")
    pg:stop "immediate"
    wait_for('sum(weir_breaker_state{state="open"})', is_more_than(0), "an open breaker")
    wait_for('sum(weir_rejected_total{reason="breaker_open"})', is_more_than(50), "refusals")
    wait_for('count(ALERTS{alertname="WeirBreakerOpen"})', is_more_than(0), "the alert")
    pg:start()
    wait_for('sum(weir_breaker_state{state="closed"})', function(value) return value == 2 end, "recovery")
    local _, ok = next(prometheus:query 'sum(weir_calls_total{outcome="ok"})')
    wait_for('sum(weir_calls_total{outcome="ok"})', is_more_than(ok + 100), "calls after it")
end

-- The engine's own document, once nothing is under way and Prometheus has scraped since.
local function stats_at_rest()
    serving.write(server.tally .. "/stop", "")
    serving.wait(function() return serving.read(server.tally .. "/tally") ~= "" end, "the tally")
    local stats = serving.wait(function()
        local document = dkjson.decode((select(3, server:get "/stats.json")))
        for _, pool in ipairs(document.pools) do
            if pool.connections.in_flight > 0 then return nil end
        end
        return document
    end, "rest")
    local now = socket.gettime()
    wait_for("min(timestamp(weir_calls_started_total))", is_more_than(now + 0.5), "a later scrape")
    return stats
end

local function engines_own(stats, group)
    local own = {}
    for _, pool in ipairs(stats.pools) do
        for name, value in pairs(pool[group]) do own[pool.pool .. " " .. name] = value end
    end
    return own
end

local function compare(stats)
    local calls, attempts = engines_own(stats, "calls"), engines_own(stats, "attempts")
    local stored = prometheus:query("sum by (pool, outcome) (weir_calls_total)", "pool", "outcome")
    for _, pool in ipairs { "service@primary", "reports@primary" } do
        for _, outcome in ipairs { "ok", "failed", "timeout", "unknown", "cancelled" } do
            lu.assertEquals({ outcome, stored[pool .. " " .. outcome] }, { outcome, calls[pool .. " " .. outcome] })
        end
        lu.assertEquals(stored[pool .. " rejected"], calls[pool .. " refused"])
        lu.assertEquals(prometheus:query("weir_attempts_total", "pool")[pool], attempts[pool .. " all"])
        lu.assertEquals(prometheus:query("sum by (pool) (weir_retries_total)", "pool")[pool], attempts[pool .. " retries"])
        lu.assertEquals(prometheus:query("sum by (pool) (weir_call_duration_seconds_count)", "pool")[pool],
            calls[pool .. " started"])
    end
end

local function compare_with_the_program()
    local stored = prometheus:query("sum by (pool, outcome) (weir_calls_total)", "pool", "outcome")
    for client, how, value in serving.read(server.tally .. "/tally"):gmatch "(%w+) (%w+) (%d+)\n" do
        local sum = 0
        for key, count in pairs(stored) do
            local pool, outcome = key:match "^(%S+) (%S+)$"
            if pool == client .. "@primary" and (outcome == "ok") == (how == "ok") then sum = sum + count end
        end
        lu.assertEquals({ client, how, sum }, { client, how, tonumber(value) })
    end
end

-- It has kept calls that somebody traced, beside the buckets that they are in.
local function check_exemplars()
    local body = prometheus:ask("/api/v1/query_exemplars?query=weir_call_duration_seconds_bucket"
        .. ("&start=%.0f&end=%.0f"):format(socket.gettime() - 300, socket.gettime() + 1))
    lu.assertStrContains(body, ('"labels":{"trace_id":"%s"}'):format(TRACE))
end

-- None of the rules has failed, and each panel has something to show after an outage.
local function check_examples()
    local rules = dkjson.decode((prometheus:ask "/api/v1/rules"))
    for _, group in ipairs(rules.data.groups) do
        for _, rule in ipairs(group.rules) do lu.assertEquals({ rule.name, rule.health }, { rule.name, "ok" }) end
    end
    for _, expression in ipairs(dashboard.expressions()) do
        local query = expression.text:gsub("%[10s%]", "[2m]")
        serving.wait(function() return next(prometheus:query(query)) ~= nil end, expression.title .. ": " .. query)
    end
end

function TestPrometheus.test_what_it_stored_is_what_was_counted()
    local till = socket.gettime() + (os.getenv "WEIR_LONG" and 60 or 0)
    repeat outage_and_recovery() until socket.gettime() >= till
    check_examples()
    check_exemplars()
    compare(stats_at_rest())
    compare_with_the_program()
    lu.assertEquals(prometheus:query "sum(resets(weir_calls_total[5m]))"[""], 0)
    lu.assertEquals(prometheus:query "sum(resets(weir_call_duration_seconds_bucket[5m]))"[""], 0)
end

os.exit(lu.LuaUnit.run())
