-- weir.poll: waiting for descriptors beside calls and sleeps. The descriptors are LuaSocket's.

local lu = require "luaunit"
local socket = require "socket"
local weir = require "weir"
local fixture = require "fixture"

local open = {}

local function keep(object)
    object:settimeout(0)
    open[#open + 1] = object
    return object
end

-- Two connected sockets.
local function pair()
    local listener = assert(socket.bind("127.0.0.1", 0))
    local client = socket.tcp()
    assert(client:connect(listener:getsockname()))
    local server = assert(listener:accept())
    listener:close()
    return keep(client), keep(server)
end

local function close_all()
    for _, object in ipairs(open) do object:close() end
    open = {}
end

-- Fills what the kernel holds back for the other side.
local function stuff(client)
    local chunk = ("x"):rep(65536)
    while client:send(chunk) do end
end

TestPoll = { tearDown = close_all }

function TestPoll.test_a_task_waits_for_bytes_while_others_run()
    local client, server = pair()
    local order = {}
    weir.gather(function()
        local ready = weir.poll(server, "r", 5)
        order[#order + 1] = ready
        order[#order + 1] = server:receive(5)
    end, function()
        weir.sleep(0.005)
        order[#order + 1] = "others ran"
        client:send("hello")
    end)
    lu.assertEquals(order, { "others ran", "r", "hello" })
end

function TestPoll.test_nil_when_the_time_is_over_and_then_anew()
    local client, server = pair()
    local before = weir.now()
    lu.assertNil(weir.poll(server, "r", 0.01))
    lu.assertTrue(weir.now() - before >= 0.01)
    lu.assertNil(weir.poll(server, "r", 0))
    client:send("x")
    lu.assertEquals(weir.poll(server, "r", 5), "r")
    lu.assertEquals(weir.poll(server, "r"), "r", "until it has been read")
end

function TestPoll.test_what_is_ready_is_said()
    local client, server = pair()
    lu.assertEquals(weir.poll(server, "w", 5), "w")
    lu.assertEquals(weir.poll(server, "rw", 5), "w")
    client:send("x")
    lu.assertEquals(weir.poll(server, "r", 5), "r")
    lu.assertEquals(weir.poll(server, "rw", 5), "rw")
    stuff(client)
    lu.assertNil(weir.poll(client, "rw", 0.01))
end

function TestPoll.test_it_works_outside_of_tasks_and_by_number()
    local client, server = pair()
    weir.spawn(function()
        weir.sleep(0.002)
        client:send("x")
    end)
    lu.assertEquals(weir.poll(server:getfd(), "r", 5), "r")
end

function TestPoll.test_the_two_directions_have_a_waiter_each()
    local client, server = pair()
    stuff(client)
    local reader = weir.spawn(weir.poll, client, "r", 5)
    local writer = weir.spawn(weir.poll, client, "w", 5)
    weir.sleep(0.005)
    lu.assertEquals({ reader:status(), writer:status() }, { "running", "running" })
    server:send("x")
    lu.assertEquals(reader:join(), "r")
    lu.assertEquals(writer:status(), "running")
    while server:receive(65536) do weir.sleep(0) end
    lu.assertEquals(writer:join(), "w")
end

function TestPoll.test_the_end_of_a_connection_is_readable()
    local client, server = pair()
    local waiting = weir.spawn(weir.poll, server, "r", 5)
    client:close()
    lu.assertEquals(waiting:join(), "r")
    lu.assertEquals({ server:receive(1) }, { nil, "closed", "" })
end

function TestPoll.test_a_cancelled_task_leaves_the_descriptor_to_others()
    local client, server = pair()
    local task = weir.spawn(weir.poll, server, "r", 5)
    weir.sleep(0)
    task:cancel()
    local ok, err = task:wait()
    lu.assertFalse(ok)
    lu.assertEquals(err.code, "cancelled")
    client:send("x")
    lu.assertEquals(weir.poll(server, "r", 5), "r")
end

function TestPoll.test_many_descriptors_at_once()
    local clients, tasks = {}, {}
    for i = 1, 100 do
        local client, server = pair()
        clients[i] = client
        tasks[i] = weir.spawn(function()
            assert(weir.poll(server, "r", 5))
            return (server:receive("*l"))
        end)
    end
    weir.sleep(0)
    for i = #clients, 1, -1 do clients[i]:send(i .. "\n") end
    for i, packed in ipairs(weir.gather(tasks)) do lu.assertEquals(packed[1], tostring(i)) end
end

function TestPoll.test_a_number_that_is_given_out_again_is_a_new_descriptor()
    for _ = 1, 50 do
        local client, server = pair()
        lu.assertNil(weir.poll(server, "r", 0))
        client:send("x")
        lu.assertEquals(weir.poll(server, "r", 5), "r")
        close_all()
    end
end

-- A call that is served without the scheduler must still leave the loop to whoever waits for a descriptor.
function TestPoll.test_calls_of_the_engine_and_descriptors_go_on_together()
    local db = fixture.open() -- first: the server's processes would inherit the sockets, and keep them open
    local client, server = pair()
    local echoes = 0
    local echo = weir.spawn(function()
        while weir.poll(server, "r", 5) do
            local bytes, why, part = server:receive(100)
            if why == "closed" then return end
            echoes = echoes + #(bytes or part)
        end
    end)
    for _ = 1, 50 do
        assert(db:service():query("echo", "select pg_sleep(0.001)"))
        client:send("x")
    end
    weir.sleep(0.01)
    lu.assertEquals(echoes, 50)
    client:close()
    echo:join()
    db:close()
end

TestMisuse = { tearDown = close_all }

local function raised(...)
    local ok, err = pcall(weir.poll, ...)
    lu.assertFalse(ok)
    return err
end

function TestMisuse.test_wrong_arguments_are_named()
    local client = pair()
    lu.assertStrContains(raised(nil, "r"), "the first argument is a nil; it must be a descriptor's number")
    lu.assertStrContains(raised({}, "r"), "or have a method getfd")
    lu.assertStrContains(raised(client, "x"), "the second argument is x; it must be 'r', 'w' or 'rw'")
    lu.assertStrContains(raised(client, "r", -1), "the time is -1; it must be a number of seconds, 0 or more")
    lu.assertStrContains(raised(1.5, "r"), "1.5 is no descriptor")
    lu.assertStrContains(raised(-1, "r"), "-1 is no descriptor")
    lu.assertStrContains(raised(client, "rx", 1), "second argument is rx")
end

function TestMisuse.test_the_callers_line_is_blamed()
    local ok, err = pcall(function() weir.poll("no", "r") end)
    lu.assertFalse(ok)
    lu.assertStrMatches(err, ".*test_poll%.lua:%d+: weir: poll: .*")
end

function TestMisuse.test_what_cannot_be_waited_for_is_refused()
    local client = pair()
    local number = client:getfd()
    client:close()
    lu.assertStrContains(raised(number, "r"), "cannot be waited for: it is closed, a file, or Weir's own")
    lu.assertStrContains(raised(2 ^ 40, "r"), "cannot be waited for")
end

function TestMisuse.test_one_waiter_for_each_direction()
    local _, server = pair()
    local first = weir.spawn(weir.poll, server, "r", 5)
    weir.sleep(0)
    lu.assertStrContains(raised(server, "r", 1), "another task waits to read from descriptor")
    lu.assertStrContains(raised(server, "rw", 1), "another task waits to read from descriptor")
    lu.assertEquals(weir.poll(server, "w", 1), "w")
    first:cancel()
    first:wait()
end

function TestMisuse.test_a_simulation_has_no_descriptors()
    local client, server = pair()
    local real = weir.spawn(weir.poll, server, "r", 5)
    weir.sleep(0)
    client:send("x")
    local why = weir.sim({}):run(function()
        weir.sleep(100)
        return raised(server, "w", 1)
    end)
    lu.assertStrContains(why, "weir: poll: a simulation has no descriptors")
    lu.assertEquals(real:join(), "r", "who waits in the real world is none of its business")
end

function TestMisuse.test_nobody_waits_in_a_policy()
    local why
    local _, server = pair()
    local db = fixture.open { retry = function()
        why = raised(server, "r", 1)
    end }
    db:service():query("fails", "select 1/0")
    lu.assertStrContains(why, "a policy must not wait or call the database")
    db:close()
end

os.exit(lu.LuaUnit.run())
