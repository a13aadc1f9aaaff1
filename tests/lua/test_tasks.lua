-- Tasks: spawn, sleep, gather, join, cancel, and waiting outside of any task.

local lu = require "luaunit"
local weir = require "weir"

-- Runs fn as the main task of a program of its own. Inside `weir run` the file itself is a task already, and
-- a program in a program is fine.
local function in_loop(fn)
    local ok, err = weir.run(fn)
    if not ok then error(err or "a task failed and nobody joined it", 0) end
end

TestTasks = {}

function TestTasks.test_sleepers_wake_in_the_order_they_are_due()
    local order = {}
    local function sleeper(seconds)
        return function()
            weir.sleep(seconds)
            order[#order + 1] = seconds
        end
    end
    weir.gather(sleeper(0.006), sleeper(0.002), sleeper(0.004), sleeper(0))
    lu.assertEquals(order, { 0, 0.002, 0.004, 0.006 })
end

function TestTasks.test_sleep_takes_as_long_as_asked()
    local started = weir.now()
    weir.sleep(0.02)
    local took = weir.now() - started
    lu.assertTrue(took >= 0.02 and took < 0.5)
end

function TestTasks.test_join_gives_the_results()
    local task = weir.spawn(function(a, b) return a + b, nil, "x" end, 2, 3)
    lu.assertEquals({ task:join() }, { 5, nil, "x" })
    lu.assertEquals({ task:join() }, { 5, nil, "x" })
    lu.assertEquals(task:status(), "done")
end

function TestTasks.test_join_raises_what_the_task_raised()
    local object = { mine = true }
    local task = weir.spawn(function() error(object) end)
    local ok, err = pcall(task.join, task)
    lu.assertFalse(ok)
    lu.assertIs(err, object)
    lu.assertEquals(task:status(), "failed")
end

function TestTasks.test_gather_packs_the_results_of_each()
    local task = weir.spawn(function() return 1, nil end)
    local results = weir.gather(task, function() return "a" end, function() end)
    lu.assertEquals(#results, 3)
    lu.assertEquals(results[1], { 1, nil, n = 2 })
    lu.assertEquals(results[2][1], "a")
    lu.assertEquals(results[3].n, 0)
end

function TestTasks.test_gather_takes_a_list_too()
    local list = {}
    for i = 1, 300 do list[i] = weir.spawn(function() return i end) end
    local results, sum = weir.gather(list), 0
    for _, packed in ipairs(results) do sum = sum + packed[1] end
    lu.assertEquals(sum, 45150)
end

function TestTasks.test_gather_raises_the_first_error_after_all_have_ended()
    local ended = false
    local ok, err = pcall(weir.gather, function() error("first", 0) end, function()
        weir.sleep(0.005)
        ended = true
    end, function() error("second", 0) end)
    lu.assertFalse(ok)
    lu.assertEquals(err, "first")
    lu.assertTrue(ended)
end

function TestTasks.test_yielding_lets_others_run()
    lu.skipIf(weir.host == "nginx", "ngx_lua runs who yields without a rest before anybody else")
    local trace = {}
    local function talker(name)
        return function()
            for _ = 1, 2 do
                trace[#trace + 1] = name
                coroutine.yield()
            end
        end
    end
    weir.gather(talker "a", talker "b")
    lu.assertEquals(table.concat(trace), "abab")
end

function TestTasks.test_tasks_that_never_rest_do_not_starve_sleepers()
    lu.skipIf(weir.host == "nginx", "ngx_lua runs who yields without a rest before anybody else")
    local done = false
    weir.gather(function()
        while not done do coroutine.yield() end
    end, function()
        weir.sleep(0.003)
        done = true
    end)
    lu.assertTrue(done)
end

function TestTasks.test_cancel_wakes_a_sleeper_with_an_error()
    local task = weir.spawn(function() weir.sleep(100) end)
    weir.sleep(0)
    task:cancel()
    local ok, err = pcall(task.join, task)
    lu.assertFalse(ok)
    lu.assertEquals(err.code, "cancelled")
end

function TestTasks.test_cancel_before_it_began_keeps_it_from_beginning()
    local began = false
    local task = weir.spawn(function() began = true end)
    task:cancel()
    lu.assertFalse((pcall(task.join, task)))
    lu.assertFalse(began)
end

function TestTasks.test_a_cancelled_task_may_clean_up_by_waiting_again()
    local cleaned = false
    local task = weir.spawn(function()
        local ok = pcall(weir.sleep, 100)
        weir.sleep(0.001)
        cleaned = not ok
    end)
    weir.sleep(0)
    task:cancel()
    task:join()
    lu.assertTrue(cleaned)
end

function TestTasks.test_cancelling_what_has_ended_changes_nothing()
    local task = weir.spawn(function() return 7 end)
    task:join()
    task:cancel()
    lu.assertEquals(task:join(), 7)
end

TestWaitingAnywhere = {}

function TestWaitingAnywhere.test_a_coroutine_of_ones_own_may_wait_too()
    local woke = coroutine.wrap(function()
        weir.sleep(0.002)
        return "woke"
    end)
    lu.assertEquals(woke(), "woke")
end

function TestWaitingAnywhere.test_tasks_go_on_while_one_waits_in_a_coroutine_of_its_own()
    local order = {}
    weir.gather(function()
        coroutine.wrap(function() weir.sleep(0.006) end)()
        order[#order + 1] = "inner"
    end, function()
        weir.sleep(0.002)
        order[#order + 1] = "other"
    end)
    lu.assertEquals(order, { "other", "inner" })
end

function TestWaitingAnywhere.test_many_waits_inside_each_other_end_with_a_clear_error()
    lu.skipIf(weir.host == "nginx", "no loop turns inside another one here")
    local tasks, told = {}, 0
    for i = 1, 60 do
        tasks[i] = weir.spawn(function()
            local ok, err = pcall(coroutine.wrap(function() weir.sleep(0.002) end))
            if not ok and tostring(err):find("too many coroutines", 1, true) then told = told + 1 end
        end)
    end
    weir.gather(tasks)
    lu.assertTrue(told > 0)
end

function TestWaitingAnywhere.test_a_deadlock_is_an_error_and_not_a_hang()
    lu.skipIf(weir.host == "nginx", "nginx always has something else to wait for")
    local first, second
    first = weir.spawn(function() second:join() end)
    second = weir.spawn(function() first:join() end)
    local ok, err = weir.run(function() first:join() end)
    first:cancel()
    pcall(first.join, first)
    pcall(second.join, second)
    lu.assertFalse(ok)
    lu.assertStrContains(tostring(err), "deadlock")
end

TestRun = {}

function TestRun.test_gives_back_what_main_returned()
    lu.assertEquals({ weir.run(function(a) return a, nil, 3 end, 1) }, { true, 1, nil, 3 })
end

function TestRun.test_tells_where_main_failed()
    local ok, err = weir.run(function() error("broken") end)
    lu.assertFalse(ok)
    lu.assertStrContains(err, "broken")
    lu.assertStrContains(err, "stack traceback")
end

function TestRun.test_waits_for_the_tasks_main_left_behind()
    local ended = false
    in_loop(function()
        weir.spawn(function()
            weir.sleep(0.005)
            ended = true
        end)
    end)
    lu.assertTrue(ended)
end

-- Runs a script in an interpreter of its own; its stderr, and whether it ended well.
local function run_script(text)
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    local command = arg[-1] == "run" and ("'%s' run"):format(os.getenv "WEIR_BIN" or "weir") or arg[-1]
    local pipe = io.popen(("%s '%s' 2>&1; echo \"exit $?\""):format(command, path))
    local output = pipe:read("*a")
    pipe:close()
    os.remove(path)
    return output
end

function TestRun.test_a_failure_nobody_joined_is_told_once_at_the_end()
    lu.skipIf(weir.host == "nginx", "the error log tells of it")
    local output = run_script [[
        local weir = require "weir"
        weir.spawn(function() error("lonely") end)
        weir.sleep(0.001)
        print("went on")
    ]]
    lu.assertStrContains(output, "went on")
    local _, count = output:gsub("nobody joined it: [^\n]*lonely", "")
    lu.assertEquals(count, 1)
end

function TestRun.test_a_failure_that_was_joined_is_not_told()
    local output = run_script [[
        local weir = require "weir"
        local task = weir.spawn(function() error("joined") end)
        weir.sleep(0.001)
        pcall(task.join, task)
    ]]
    lu.assertNotStrContains(output, "joined")
end

local misuses = {
    { function() weir.spawn(5) end, "spawn: the first argument is a number; it must be a function" },
    { function() weir.sleep(-1) end, "sleep(-1): it must be a number of seconds" },
    { function() weir.sleep("x") end, "sleep(x): it must be a number of seconds" },
    { function() weir.sleep(0 / 0) end, "it must be a number of seconds" },
    { function() weir.gather(5) end, "gather: argument 1 is a number" },
    { function() weir.gather { print, "x" } end, "gather: argument 2 is a string" },
}

function TestRun.test_misuse_raises_at_the_callers_line()
    for _, case in ipairs(misuses) do
        local ok, err = pcall(case[1])
        lu.assertFalse(ok)
        lu.assertStrContains(err, "test_tasks.lua:")
        lu.assertStrContains(err, case[2])
    end
end

os.exit(lu.LuaUnit.run(), true)
