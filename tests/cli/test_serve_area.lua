-- `weir serve --area` without a policy: what other processes keep in their area, whatever becomes of it and of them.

local lu = require "luaunit"
local serving = require "serving"

local folder, area, watcher, worker

local function policy(name, more)
    return ([[
        local weir = require "weir"
        local db = assert(weir.open { name = %q, area = %q, backends = { primary = "host=/nowhere" },
            clients = { service = { bypass_rls = true } }, timeout = 0.05, retries = 0, %s })
        for _ = 1, 3 do db:service():query("GET /", "select 1") end
        return db
    ]]):format(name, area, more or "")
end

TestArea = {}

function TestArea.setUp()
    folder = serving.folder()
    area = folder .. "/weir.area"
    watcher = serving.serve(nil, "--area " .. area)
end

function TestArea.tearDown()
    watcher:stop()
    if worker then worker:stop() end
    worker = nil
    os.execute("rm -rf " .. serving.quote(folder))
end

local function health()
    return watcher:get "/health"
end

local function wait_for_reason(pattern)
    serving.wait(function()
        local status, _, body = health()
        return status == 503 and body:find(pattern)
    end, pattern)
end

local function started()
    return tonumber(select(3, watcher:get "/metrics"):match 'weir_calls_started_total{pool="service@primary"} (%d+)')
end

function TestArea.test_without_a_file_it_waits_for_one_and_says_so()
    wait_for_reason '"status":"unhealthy","reason":"[^"]*weir.area'
    local _, _, body = health()
    lu.assertStrContains(body, '"pool":{"totalRequests":0,"successRate":"100.00"')
    lu.assertEquals((watcher:get "/metrics"), 503)
    lu.assertEquals((watcher:get "/readyz"), 503)
    lu.assertEquals((watcher:get "/livez"), 200)
    worker = serving.serve(policy "late")
    serving.wait(started, "its figures")
    lu.assertEquals(started(), 3)
    lu.assertEquals((watcher:get "/readyz"), 200)
end

function TestArea.test_it_shows_what_the_worker_shows()
    worker = serving.serve(policy("shown", "health = { checks = { mine = function() return nil, 'no' end } }"))
    serving.wait(started, "its figures")
    serving.wait(function() return select(3, health()):find '"mine":{"status":"unhealthy"' end, "the check")
    local mine, theirs = select(3, watcher:get "/metrics"), select(3, worker:get "/metrics")
    for _, family in ipairs { "weir_calls_total", "weir_attempts_total", "weir_rejected_total", "weir_backend_up" } do
        local pattern = "\n(" .. family .. "{[^\n]*)"
        local there = {}
        for line in theirs:gmatch(pattern) do there[#there + 1] = line end
        for line in mine:gmatch(pattern) do lu.assertEquals(line, table.remove(there, 1)) end
        lu.assertEquals(there, {})
    end
    lu.assertEquals((watcher:get "/calls.json"), 200)
end

function TestArea.test_a_deserted_one_is_told_and_what_was_left_is_shown()
    worker = serving.serve(policy "deserted")
    serving.wait(started, "its figures")
    worker:kill()
    worker = nil
    wait_for_reason '"reason":"[^"]*no worker'
    lu.assertEquals(started(), 3)
    lu.assertEquals((watcher:get "/readyz"), 503)
    worker = serving.serve(policy "deserted")
    serving.wait(function() return watcher:get "/readyz" == 200 end, "that somebody works on it again")
    serving.wait(function() return started() == 6 end, "the sum")
end

function TestArea.test_it_follows_when_another_takes_its_place()
    worker = serving.serve(policy "first")
    serving.wait(started, "its figures")
    worker:stop()
    os.remove(area)
    worker = serving.serve(policy "second")
    serving.wait(function() return select(3, watcher:get "/stats.json"):find '"name":"second"' end, "the second")
    serving.wait(function() return watcher:get "/readyz" == 200 end, "all well")
    os.remove(area)
    serving.write(area, "rubbish")
    wait_for_reason '"reason":"'
end

os.exit(lu.LuaUnit.run())
