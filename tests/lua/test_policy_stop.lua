-- Policies that never come to an end, in every shape an endless loop can take. On LuaJIT the danger is compiled
-- code, which no hook interrupts: most shapes here call something that the program has made hot before.

local lu = require "luaunit"
local fixture = require "fixture"

local jit_util = rawget(_G, "jit") and require "jit.util"

-- What a program may hand to its policies. Endless for an endless n.
local function spin(n)
    local i = 0
    while i < n do i = i + 1 end
    return i
end

local FOREVER = math.huge

-- Calls fn often enough for LuaJIT to compile it, and what calls it in a loop.
local function hot(fn, ...)
    for _ = 1, 500 do fn(...) end
    return fn
end

local function hot_spin()
    return hot(spin, 10)
end

local function module_with(fn)
    return { tools = { { walk = fn } } }
end

-- A coroutine that has worked for the program, and waits in the middle of a loop that may be compiled.
local function started(make)
    local turns = make(function(n)
        while true do
            spin(n)
            local i = 0
            while i < n do i = i + 1 end
            n = coroutine.yield()
        end
    end)
    return turns
end

local shapes = {}

function shapes.a_bare_loop()
    return function() while true do end end
end

function shapes.a_loop_by_goto()
    return function()
        ::again::
        goto again
    end
end

function shapes.a_repeat()
    return function() repeat until false end
end

function shapes.a_function_that_was_hot_before()
    local n = 10
    local function policy()
        local i = 0
        while i < n do i = i + 1 end
        return "x"
    end
    hot(policy)
    n = FOREVER
    return policy
end

function shapes.a_helper_that_is_an_upvalue()
    local helper = hot_spin()
    return function() return helper(FOREVER) .. "" end
end

function shapes.a_helper_that_is_called_last()
    local helper = hot_spin()
    return function() return helper(FOREVER) end
end

function shapes.a_helper_deep_in_a_module()
    local module = module_with(hot_spin())
    return function() return module.tools[1].walk(FOREVER) .. "" end
end

function shapes.a_helper_that_comes_by_require()
    package.loaded["policy_stop.helper"] = module_with(hot_spin())
    return function() return require("policy_stop.helper").tools[1].walk(FOREVER) .. "" end
end

function shapes.a_helper_that_becomes_hot_only_later()
    local calls = 0
    return function()
        calls = calls + 1
        return spin(FOREVER) .. ""
    end, function() hot_spin() end
end

function shapes.a_numeric_loop()
    local walk = hot(function(n)
        local sum = 0
        for i = 1, n do sum = sum + i end
        return sum
    end, 100)
    return function() return walk(FOREVER) .. "" end
end

function shapes.an_iterator()
    local function next_one(_, i) return i + 1 end
    local walk = hot(function(n)
        for i in next_one, nil, 0 do
            if i > n then return i end
        end
    end, 100)
    return function() return walk(FOREVER) .. "" end
end

function shapes.recursion_without_a_stack()
    local function down(n)
        if n <= 0 then return "x" end
        return down(n - 1)
    end
    hot(down, 100)
    return function() return down(FOREVER) end
end

function shapes.two_functions_that_call_each_other()
    local ping, pong
    function ping(n) if n > 0 then return pong(n - 1) end end
    function pong(n) if n > 0 then return ping(n - 1) end end
    hot(ping, 100)
    return function() return ping(FOREVER) end
end

function shapes.any_number_of_arguments()
    local walk = hot(function(...)
        local n = ...
        return spin(n) + select("#", ...)
    end, 10, 20)
    return function() return walk(FOREVER, 1, 2) .. "" end
end

function shapes.an_index_metamethod()
    hot_spin()
    local object = setmetatable({}, { __index = function(_, key) return key .. spin(FOREVER) end })
    return function() return object.name end
end

function shapes.an_assigning_metamethod()
    hot_spin()
    local object = setmetatable({}, { __newindex = function() spin(FOREVER) end })
    return function() object.name = "x" end
end

function shapes.operators()
    hot_spin()
    local function operate() return spin(FOREVER) end
    local object = setmetatable({}, { __concat = operate, __add = operate, __lt = operate, __call = operate })
    return function(context)
        local which = #context % 4
        if which == 0 then return object .. "x" end
        if which == 1 then return object + 1 .. "" end
        if which == 2 then return tostring(object < object) end
        return object()
    end
end

function shapes.tostring_of_an_object()
    hot_spin()
    local object = setmetatable({}, { __tostring = function() return "x" .. spin(FOREVER) end })
    return function() return tostring(object) end
end

function shapes.what_gsub_calls()
    hot_spin()
    return function(context) return (context:gsub("%w", function() spin(FOREVER) end)) end
end

function shapes.what_sort_calls()
    local compare = hot(function(a, b)
        spin(a)
        return a < b
    end, 1, 2)
    hot(function() table.sort({ 3, 2, 1 }, compare) end)
    return function() table.sort({ FOREVER, FOREVER, 1 }, compare) end
end

function shapes.pcall_again_and_again()
    local helper = hot_spin()
    return function()
        while true do pcall(helper, FOREVER) end
    end
end

function shapes.pcall_in_a_hot_function()
    local stubborn = hot(function(n)
        local i = 0
        while i < n do
            pcall(spin, n)
            i = i + 1
        end
    end, 10)
    return function() return stubborn(FOREVER) end
end

function shapes.xpcall_whose_handler_returns()
    local helper = hot_spin()
    return function()
        while true do xpcall(function() helper(FOREVER) end, function() return "caught" end) end
    end
end

function shapes.a_coroutine_made_inside()
    local helper = hot_spin()
    return function() return coroutine.wrap(helper)(FOREVER) .. "" end
end

function shapes.coroutines_under_pcall()
    local helper = hot_spin()
    return function()
        while true do
            pcall(coroutine.wrap(function() pcall(helper, FOREVER) end))
        end
    end
end

function shapes.coroutines_in_coroutines()
    local helper = hot_spin()
    return function()
        coroutine.wrap(function()
            coroutine.wrap(function()
                while true do coroutine.wrap(helper)(FOREVER) end
            end)()
        end)()
    end
end

function shapes.a_coroutine_that_yields_for_ever()
    local turn = hot(coroutine.wrap(function()
        while true do coroutine.yield() end
    end))
    return function()
        while true do turn() end
    end
end

function shapes.a_coroutine_made_outside()
    local helper = hot_spin()
    local thread = coroutine.create(function() return helper(FOREVER) end)
    return function() return coroutine.resume(thread) end
end

function shapes.a_coroutine_that_has_run_outside()
    local thread = started(coroutine.create)
    hot(coroutine.resume, thread, 100)
    return function() error((select(2, coroutine.resume(thread, FOREVER)))) end
end

function shapes.a_wrapped_coroutine_that_has_run_outside()
    local turn = started(coroutine.wrap)
    hot(turn, 100)
    return function() return turn(FOREVER) end
end

function shapes.a_coroutine_that_waits_deep_down()
    local turn = hot(coroutine.wrap(function(n)
        local function down(depth)
            if depth > 0 then return 1 + down(depth - 1) end
            n = coroutine.yield()
            return 0
        end
        while true do
            local i = 0
            while i < n do i = i + 1 end
            down(50)
        end
    end), 100)
    return function() return turn(FOREVER) end
end

function shapes.code_that_is_compiled_inside()
    return function()
        local load_text = loadstring or load -- luacheck: ignore
        local walk = load_text "local n = ... local i = 0 while i < n do i = i + 1 end"
        for _ = 1, 300 do walk(100) end
        return walk(FOREVER)
    end
end

function shapes.closures_made_anew()
    return function()
        while true do
            local function fresh(n) return spin(n) end
            for _ = 1, 100 do fresh(100) end
        end
    end
end

function shapes.many_calls_into_c_that_each_take_long()
    local text = ("a"):rep(200000) .. "b"
    return function()
        while true do text:find("a-a-b", 199000) end
    end
end

if not rawget(_G, "jit") then
    function shapes.a_variable_that_is_closed()
        return load [[
            local closing = setmetatable({}, { __close = function() while true do end end })
            while true do
                local variable <close> = closing
            end
        ]]
    end
else
    -- In 5.4 an error inside the handler is handed to the handler, where the hook that raised it is asleep.
    function shapes.a_handler_of_xpcall_for_an_error_of_its_own()
        local helper = hot_spin()
        return function()
            xpcall(error, function() helper(FOREVER) end)
        end
    end

    function shapes.a_loop_over_values_of_ffi()
        local ffi = require "ffi"
        local walk = hot(function(n)
            local i = ffi.new("int64_t", 0)
            while i < n do i = i + 1 end
            return i
        end, 100)
        return function() return tostring(walk(2 ^ 62)) end
    end

    function shapes.a_function_that_was_told_to_be_compiled()
        local walk = hot_spin()
        jit.on(walk)
        return function() return walk(FOREVER) .. "" end
    end
end

-- ---- the tests ---------------------------------------------------------------------------------------------

local function names(set)
    local list = {}
    for name in pairs(set) do list[#list + 1] = name end
    table.sort(list)
    return list
end

local function told(db)
    local found = {}
    for _, event in ipairs(db:events()) do
        if event.kind == "policy" then found[#found + 1] = event.text end
    end
    return table.concat(found, "\n")
end

local function labels_of(db)
    local found = {}
    for _, pool in ipairs(db:stats().pools) do
        for _, label in ipairs(pool.labels) do found[label.label] = true end
    end
    return names(found)
end

-- How often the policy has given an answer, and how often it failed.
local function counts(db)
    local answers, faults = 0, 0
    for _, pool in ipairs(db:stats().pools) do
        answers, faults = answers + pool.events.policy_calls, faults + pool.events.policy_faults
    end
    return { answers = answers, faults = faults }
end

-- Inside nginx what coroutine.wrap gave to a request goes on for that request only; a policy belongs to none.
local of_a_request = rawget(_G, "ngx") and {
    a_wrapped_coroutine_that_has_run_outside = true,
    a_coroutine_that_waits_deep_down = true,
    a_coroutine_that_yields_for_ever = true,
} or {}

local function ends_by_the_built_in_policy(name, hook, policy, heat)
    local db = fixture.open { [hook] = policy, policy_slice = 0.002, policy_faults = 1000 }
    for calls, context in ipairs { "GET /", "GET /a" } do
        local rows, err = db:service():query(context, "select 1 as one")
        lu.assertEquals(rows, { { one = 1 } }, name .. ": " .. tostring(err))
        lu.assertEquals(counts(db), { answers = 0, faults = calls }, name)
        if heat then heat() end
    end
    lu.assertStrContains(told(db), ("policy %s failed, the built-in one answers: "):format(hook))
    lu.assertStrContains(told(db), of_a_request[name] and "no request found" or
        "ran longer than its time slice of 0.002 seconds")
    lu.assertEquals(labels_of(db), { "GET /", "GET /a" }, name)
    lu.assertEquals(fixture.leftovers(db), "", name)
    db:close()
end

TestEndlessPolicies = {}

for name, make in pairs(shapes) do
    TestEndlessPolicies["test_ends_" .. name] = function()
        ends_by_the_built_in_policy(name, "label", make())
    end
end

function TestEndlessPolicies.test_routes_end_too()
    ends_by_the_built_in_policy("route", "route", shapes.a_helper_deep_in_a_module())
end

function TestEndlessPolicies.test_retries_end_too()
    local policy = shapes.a_helper_that_is_an_upvalue()
    local db = fixture.open { retry = policy, policy_slice = 0.002, retries = 2 }
    assert(fixture.server():sql [[
        create or replace function transient() returns int language plpgsql as
        $$ begin raise exception 'try again' using errcode = '40001'; end $$;
        grant execute on function transient() to public;
    ]])
    local _, err = db:service():query("GET /x", "select transient()")
    lu.assertEquals(err.attempts, 3)
    lu.assertStrContains(told(db), "policy retry failed, the built-in one answers: ")
    db:close()
end

function TestEndlessPolicies.test_one_that_is_called_from_a_hot_loop_ends()
    local helper = hot_spin()
    local function policy() return helper(FOREVER) end
    local db = fixture.open { label = policy, policy_slice = 0.0005, policy_faults = 1000 }
    local service, rows = db:service(), 0
    for _ = 1, 200 do rows = rows + #assert(service:query("GET /", "select 1")) end
    lu.assertEquals(rows, 200)
    lu.assertEquals(counts(db), { answers = 0, faults = 200 })
    db:close()
end

TestOthers = {}

-- How many pieces of compiled code there are; 0 where nothing is compiled.
local function traces()
    local count = 0
    if not jit_util then return 0 end
    for number = 1, 4000 do
        if jit_util.traceinfo(number) then count = count + 1 end
    end
    return count
end

local function stopped_engine()
    local db = fixture.open { label = shapes.coroutines_under_pcall(), policy_slice = 0.002 }
    assert(db:service():query("GET /", "select 1"))
    lu.assertEquals(counts(db), { answers = 0, faults = 1 })
    return db
end

function TestOthers.test_code_elsewhere_runs_and_is_compiled_after_a_policy_was_stopped()
    local db = stopped_engine()
    local before = traces()
    local load_text = loadstring or load -- luacheck: ignore
    local walk = load_text "local n = ... local sum = 0 for i = 1, n do sum = sum + i % 7 end return sum"
    lu.assertEquals(walk(70000), 210000)
    if jit_util then lu.assertTrue(traces() > before) end
    lu.assertNil(debug.gethook())
    lu.assertEquals(coroutine.wrap(function() return walk(7000) end)(), 21000)
    db:close()
end

function TestOthers.test_compiled_code_that_no_policy_calls_stays_compiled()
    local load_text = loadstring or load -- luacheck: ignore
    local walk = load_text "local n = ... local sum = 0 for i = 1, n do sum = sum + i % 7 end return sum"
    walk(70000)
    local before = traces()
    stopped_engine():close()
    lu.assertTrue(traces() >= before)
    if jit_util then lu.assertTrue(before > 0) end
end

function TestOthers.test_a_function_that_policies_call_goes_on_being_right_for_the_program()
    local helper = hot_spin()
    local db = fixture.open { label = function(context) return context .. helper(3) end, policy_slice = 1 }
    for _ = 1, 100 do
        assert(db:service():query("GET /", "select 1"))
        lu.assertEquals(helper(1000), 1000)
    end
    lu.assertEquals(labels_of(db), { "GET /3" })
    lu.assertEquals(counts(db), { answers = 100, faults = 0 })
    db:close()
end

if not rawget(_G, "ngx") then
    function TestOthers.test_a_coroutine_of_the_programs_goes_on_after_a_policy_has_resumed_it()
        local turn = started(coroutine.wrap)
        hot(turn, 100)
        local db = fixture.open {
            label = function()
                turn(5)
                return "turned"
            end,
            policy_slice = 1,
        }
        for _ = 1, 50 do
            assert(db:service():query("GET /", "select 1"))
            turn(20000)
        end
        lu.assertEquals(labels_of(db), { "turned" })
        lu.assertEquals(counts(db), { answers = 50, faults = 0 })
        db:close()
    end
end

function TestOthers.test_a_coroutine_that_waits_too_deep_is_not_resumed_where_that_could_not_be_stopped()
    local function down(depth)
        if depth > 0 then return 1 + down(depth - 1) end
        coroutine.yield()
        return 0
    end
    local thread = coroutine.create(down)
    coroutine.resume(thread, 200)
    local db = fixture.open {
        label = function()
            local resumed, told_so = coroutine.resume(thread)
            return resumed and "resumed" or told_so
        end,
    }
    assert(db:service():query("GET /", "select 1"))
    if jit_util then
        lu.assertStrContains(told(db), "cannot resume a coroutine that waits more than 100 calls deep")
        lu.assertEquals(coroutine.status(thread), "suspended")
    else
        lu.assertEquals(labels_of(db), { "resumed" })
    end
    db:close()
end

-- A hook of the program's own (a profiler, a debugger) is there again when the policy has ended.
function TestOthers.test_a_hook_of_the_programs_own_is_put_back()
    local counted = 0
    local db = fixture.open { label = shapes.a_bare_loop(), policy_slice = 0.002 }
    local function count() counted = counted + 1 end
    debug.sethook(count, "", 10)
    assert(db:service():query("GET /", "select 1"))
    local hook, mask, every = debug.gethook()
    debug.sethook()
    lu.assertEquals({ hook, mask, every }, { count, "", 10 })
    lu.assertTrue(counted > 0)
    lu.assertEquals(counts(db), { answers = 0, faults = 1 })
    db:close()
end

os.exit(lu.LuaUnit.run(), true)
