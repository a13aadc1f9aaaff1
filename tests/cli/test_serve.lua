-- `weir serve` from outside: what it listens on, gives, refuses and says, and how it ends. No database is needed.

local lu = require "luaunit"
local serving = require "serving"

-- An engine that cannot reach its server, with checks; `more` are further options.
local function policy(more)
    return ([[return {
        name = "served", backends = { primary = "host=/nowhere" }, clients = { service = { bypass_rls = true } }, %s
    }]]):format(more or "")
end

local server

local function serve(...)
    server = serving.serve(...)
    return server
end

local function stop()
    local ended = server
    server = nil
    if ended then lu.assertEquals(ended:stop(), 0) end
end

-- ---- documents ------------------------------------------------------------------------------------------------

TestDocuments = { tearDown = stop }

function TestDocuments.test_each_document_has_its_type_and_headers()
    serve(policy())
    local types = {
        ["/livez"] = "text/plain; charset=utf-8", ["/readyz"] = "text/plain; charset=utf-8",
        ["/metrics"] = "text/plain; version=0.0.4; charset=utf-8", ["/stats.json"] = "application/json",
        ["/calls.json?most=3"] = "application/json", ["/events.json?after=1"] = "application/json",
        ["/"] = "text/html; charset=utf-8",
    }
    for path, kind in pairs(types) do
        local status, headers, body = server:get(path)
        lu.assertEquals({ path, status, headers["content-type"] }, { path, 200, kind })
        lu.assertEquals(headers["cache-control"], "no-store")
        lu.assertEquals(headers["x-content-type-options"], "nosniff")
        lu.assertStrContains(headers["content-security-policy"], "default-src 'none'")
        lu.assertTrue(#body > 0)
    end
end

function TestDocuments.test_accept_chooses_the_form()
    serve(policy())
    local _, headers, body = server:get("/metrics", { Accept = "application/openmetrics-text; version=1.0.0" })
    lu.assertStrContains(headers["content-type"], "application/openmetrics-text")
    lu.assertStrContains(body, "# EOF\n")
    _, headers = server:get("/health", { Accept = "application/health+json" })
    lu.assertEquals(headers["content-type"], "application/health+json")
end

function TestDocuments.test_metrics_tell_of_the_process_too_and_promtool_has_nothing_to_say()
    serve(policy())
    local _, _, body = server:get "/metrics"
    lu.assertTrue(tonumber(body:match "\nprocess_resident_memory_bytes (%d+)\n") > 1000000)
    lu.assertTrue(tonumber(body:match "\nprocess_open_fds (%d+)\n") > 5)
    lu.assertAlmostEquals(tonumber(body:match "\nprocess_start_time_seconds (%S+)\n"), os.time(), 60)
    local path = serving.write(os.tmpname(), body)
    local pipe = io.popen("promtool check metrics <" .. path .. " 2>&1; echo $?")
    lu.assertEquals(pipe:read "a", "0\n")
    pipe:close()
    os.remove(path)
    _, _, body = server:get("/metrics", { Accept = "application/openmetrics-text" })
    lu.assertStrContains(body, "# UNIT process_cpu_seconds seconds\nprocess_cpu_seconds_total ")
    lu.assertEquals(body:sub(-6), "# EOF\n")
    lu.assertEquals(select(2, body:gsub("# EOF", "")), 1)
end

function TestDocuments.test_a_dead_database_is_unhealthy_and_ready()
    serve(policy())
    serving.wait(function() return server:get "/health" == 503 end, "an unhealthy engine")
    local _, _, body = server:get "/health"
    lu.assertStrContains(body, [[{"status":"unhealthy","checks":{"database":{"status":"unhealthy","responseTime":]])
    lu.assertEquals(server:get "/readyz", 200)
end

function TestDocuments.test_a_connection_is_kept_for_the_next_request_and_head_has_no_body()
    serve(policy())
    local connection = server:connect()
    local status, headers = serving.exchange(connection, serving.request("/stats.json", nil, "HEAD"))
    lu.assertEquals(status, 200)
    lu.assertTrue(tonumber(headers["content-length"]) > 100)
    for _ = 1, 3 do lu.assertEquals(serving.exchange(connection, serving.request "/livez"), 200) end
    connection:close()
end

function TestDocuments.test_nothing_else_is_there_and_nothing_can_be_changed()
    serve(policy())
    for _, path in ipairs { "/nothing", "/metrics/", "/../etc/passwd", "/health%00" } do
        lu.assertEquals({ path, (server:get(path)) }, { path, 404 })
    end
    for _, method in ipairs { "POST", "PUT", "DELETE", "PATCH", "OPTIONS" } do
        local status, headers = server:get("/health", { ["Content-Length"] = "0" }, method)
        lu.assertEquals({ method, status, headers.allow }, { method, 405, "GET, HEAD" })
    end
    lu.assertEquals((server:get("/" .. ("x"):rep(2000))), 414)
end

-- ---- where it listens -------------------------------------------------------------------------------------------

TestAddress = { tearDown = stop }

local function curl(arguments)
    local pipe = io.popen("curl -s --max-time 10 " .. arguments)
    local text = pipe:read "a"
    pipe:close()
    return text
end

function TestAddress.test_a_unix_socket_is_for_owner_and_group_and_gone_at_the_end()
    local folder = serving.folder()
    local path = folder .. "/weir.sock"
    serve(policy(), "--listen unix:" .. path)
    lu.assertEquals(curl("--unix-socket " .. path .. " http://weir/livez"), "alive\n")
    local pipe = io.popen("stat -c %a " .. path)
    lu.assertEquals(pipe:read "a", "660\n")
    pipe:close()
    stop()
    lu.assertFalse(os.execute("test -e " .. path) or false)
    os.execute("rm -rf " .. folder)
end

function TestAddress.test_a_socket_left_behind_is_replaced_and_one_in_use_is_not()
    local folder = serving.folder()
    local path = folder .. "/weir.sock"
    local killed = serving.serve(policy(), "--listen unix:" .. path)
    killed:kill()
    serve(policy(), "--listen unix:" .. path)
    lu.assertEquals(curl("--unix-socket " .. path .. " http://weir/livez"), "alive\n")
    local second = serving.start(policy(), "--listen unix:" .. path)
    lu.assertEquals(second:code(), 1)
    lu.assertStrContains(select(2, second:said()), "somebody listens there")
    second:stop()
    serving.write(folder .. "/file", "precious")
    second = serving.start(policy(), "--listen unix:" .. folder .. "/file")
    lu.assertEquals(second:code(), 1)
    second:stop()
    lu.assertEquals(serving.read(folder .. "/file"), "precious")
    stop()
    os.execute("rm -rf " .. folder)
end

function TestAddress.test_a_port_alone_is_on_the_loopback_and_the_wide_world_is_warned_of()
    for _, address in ipairs { "0", ":0", "127.0.0.1:0" } do
        serve(policy "log = false", "--listen " .. address)
        lu.assertEquals((server:get "/livez"), 200)
        lu.assertEquals(select(2, server:said()), "")
        stop()
    end
    local wide = serving.start(policy(), "--listen 0.0.0.0:0")
    serving.wait(function() return wide:said() ~= "" end, "its address")
    lu.assertStrContains(select(2, wide:said()), "--token-file")
    wide:stop()
end

function TestAddress.test_wrong_usage_is_told()
    local wrong = {
        ["--listen 127.0.0.1"] = "it must be HOST:PORT", ["--listen ::1:80"] = "it must be HOST:PORT",
        ["--listen 1 --drain x"] = "--drain is 'x'", ["--listen 1 --fast"] = "unknown option '--fast'",
        ["--listen"] = "--listen needs a value", ["--listen 1 other.lua"] = "one POLICY.lua at most",
        ["--listen 1 --token-file missing"] = "missing",
    }
    for arguments, sentence in pairs(wrong) do
        local process = serving.start(policy(), arguments)
        lu.assertEquals({ arguments, process:code() > 0 }, { arguments, true })
        lu.assertStrContains(select(2, process:said()), sentence)
        process:stop()
    end
end

-- ---- the token ----------------------------------------------------------------------------------------------------

TestToken = { tearDown = stop }

local BASIC = { right = "Basic eDpzZWNyZXQ=", wrong = "Basic eDpzZWNyZWQ=" } -- x:secret, x:secred

function TestToken.test_only_who_has_it_may_ask_but_for_livez_and_readyz()
    local folder = serving.folder()
    local file = serving.write(folder .. "/token", "secret\n")
    serve(policy(), "--token-file " .. file)
    local status, headers = server:get "/metrics"
    lu.assertEquals(status, 401)
    lu.assertNotNil(headers["www-authenticate"])
    for _, wrong in ipairs { "Bearer secre", "Bearer secrets", "Bearer ", "Bearer", "secret", "Basic secret", BASIC.wrong } do
        lu.assertEquals({ wrong, (server:get("/health", { Authorization = wrong })) }, { wrong, 401 })
    end
    lu.assertEquals((server:get("/events", { Authorization = "Bearer no" })), 401)
    for _, right in ipairs { "Bearer secret", "bearer  secret", BASIC.right } do
        lu.assertEquals({ right, (server:get("/metrics", { Authorization = right })) }, { right, 200 })
    end
    lu.assertEquals((server:get "/livez"), 200)
    lu.assertEquals((server:get "/readyz"), 200)
    os.execute("rm -rf " .. folder)
end

-- ---- signals --------------------------------------------------------------------------------------------------------

TestSignals = { tearDown = stop }

function TestSignals.test_after_sigterm_it_is_not_ready_lingers_and_ends_well()
    serve(policy(), "--linger 1")
    lu.assertEquals((server:get "/readyz"), 200)
    server:signal "TERM"
    serving.wait(function()
        local status, _, body = server:get "/readyz"
        return status == 503 and body == "draining\n"
    end, "not ready")
    lu.assertEquals((server:get "/livez"), 200)
    lu.assertEquals(server:stop(), 0)
end

function TestSignals.test_sighup_takes_a_new_policy_and_counters_go_on()
    serve(policy())
    local before = select(3, server:get "/metrics"):match "weir_area_created_timestamp_seconds (%S+)"
    serving.write(server.policy, policy "health = { checks = { new = function() return true end } }")
    server:signal "HUP"
    serving.wait(function() return select(3, server:get "/health"):find('"new":', 1, true) end, "the new check")
    lu.assertEquals(select(3, server:get "/metrics"):match "weir_area_created_timestamp_seconds (%S+)", before)
    lu.assertStrContains(server:said(), "policy 1 is in force")
end

function TestSignals.test_its_log_is_on_standard_error_unless_the_policy_says_otherwise()
    serve(policy())
    local function said(text) return select(2, server:said()):find(text, 1, true) end
    serving.wait(function() return said "level=info event=engine.opened " end, "that the engine is open")
    stop()
    serve(policy "log = false")
    serving.wait(function() return (server:get "/readyz") == 200 end, "that it is ready")
    lu.assertNil(said "event=")
end

local function moved_away_and_hung_up(log)
    serving.wait(function() return serving.read(log) ~= "" end, "that the engine is open")
    assert(os.rename(log, log .. ".1"))
    server:signal "HUP"
    return serving.wait(function() return io.open(log) end, "a new log")
end

function TestSignals.test_sighup_opens_a_log_file_anew_whoever_opened_the_engine()
    local log = os.tmpname()
    local option = ("log = { to = %q }"):format(log)
    serve(policy(option))
    moved_away_and_hung_up(log):close()
    stop()
    os.remove(log)
    serve(([[
        return assert(require "weir".open { name = "own", backends = { primary = "host=/nowhere" },
            clients = { service = { bypass_rls = true } }, %s })
    ]]):format(option))
    moved_away_and_hung_up(log):close()
    lu.assertEquals((server:get "/livez"), 200)
    lu.assertNotStrContains(select(2, server:said()), "restart instead")
    os.remove(log)
    os.remove(log .. ".1")
end

function TestSignals.test_all_processes_on_an_area_follow_a_new_policy()
    local folder = serving.folder()
    local other = serving.serve(policy(), "--area " .. folder .. "/shared.area")
    serve(policy(), "--area " .. folder .. "/shared.area")
    serving.write(server.policy, policy "health = { checks = { new = function() return true end } }")
    server:signal "HUP"
    serving.wait(function() return select(3, other:get "/health"):find('"new":', 1, true) end, "the new check")
    serving.wait(function() return other:said():find "policy 1 is in force" end, "that it is told")
    other:stop()
    stop()
    os.execute("rm -rf " .. serving.quote(folder))
end

function TestSignals.test_a_mistake_is_told_and_the_old_policy_stays()
    serve(policy "health = { checks = { old = function() return true end } }")
    for text, sentence in pairs {
        ["return {"] = "policy.lua:1", ["return 7"] = "returns a number", ["return { name = 3 }"] = "name",
    } do
        serving.write(server.policy, text)
        server:signal "HUP"
        serving.wait(function() return select(2, server:said()):find(sentence, 1, true) end, sentence)
        lu.assertStrContains(select(3, server:get "/health"), '"old":')
    end
    lu.assertStrContains(select(3, server:get "/events.json"), "was refused")
end

function TestSignals.test_what_is_no_policy_is_told_and_nothing_is_left_behind()
    local process = serving.start("error 'no such day'")
    lu.assertEquals(process:code(), 1)
    lu.assertStrContains(select(2, process:said()), "no such day")
    process:stop()
    serve(policy())
    local area = server:said():match "area (%S+)"
    lu.assertTrue(os.execute("test -e " .. area))
    stop()
    lu.assertFalse(os.execute("test -e " .. area) or false)
end

-- ---- policies that open their engine ----------------------------------------------------------------------------------

TestScripts = { tearDown = stop }

function TestScripts.test_its_tasks_run_while_it_is_served_and_do_not_hold_up_the_end()
    serve([[
        local weir = require "weir"
        local db = assert(weir.open { name = "own", backends = { primary = "host=/nowhere" },
            clients = { service = { bypass_rls = true } }, timeout = 0.05, retries = 0 })
        weir.spawn(function()
            while true do
                db:service():query("tick", "select 1")
                weir.sleep(0.02)
            end
        end)
        return db
    ]])
    serving.wait(function()
        local _, _, body = server:get "/metrics"
        return tonumber(body:match 'weir_calls_started_total{pool="service@primary"} (%d+)' or 0) > 3
    end, "calls")
    server:signal "HUP"
    serving.wait(function() return select(2, server:said()):find "restart instead" end, "that it is not read again")
    lu.assertEquals(server:stop(), 0)
end

function TestScripts.test_a_task_that_fails_is_told_while_the_others_go_on()
    serve([[
        local weir = require "weir"
        weir.spawn(function() error "out of eggs" end)
        return assert(weir.open { name = "own", backends = { primary = "host=/nowhere" },
            clients = { service = { bypass_rls = true } } })
    ]])
    serving.wait(function() return select(2, server:said()):find("out of eggs", 1, true) end, "the failure")
    lu.assertEquals((server:get "/livez"), 200)
    lu.assertEquals(server:stop(), 0)
end

os.exit(lu.LuaUnit.run())
