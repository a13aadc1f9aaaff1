-- The jitter comparison of "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), written down
-- from the description of its procedure and using nothing of Weir: clients that contend for one row under
-- optimistic concurrency. Each reads the version, then writes if it is unchanged, else backs off and starts
-- again from the read. A message takes |N(10, 2)| ms one way; the n-th delay of a client comes from base *
-- 2^n, base 5 ms, cap 2000 ms, and is added to its next request's time of travel.
--
-- The table in test_jitter.lua is the output of `lua5.4 tests/sim/jitter_reference.lua`. At 100 clients it
-- agrees with the published simulator's calls, 796 full, 813 equal, 1005 decorrelated, 1847 without jitter.

local RUNS, BASE, CAP, MEAN, SD = 2000, 5, 2000, 10, 2
local random = math.random

local function normal()
    return math.sqrt(-2 * math.log(1 - random())) * math.cos(2 * math.pi * random())
end

local function travel()
    return math.abs(MEAN + SD * normal())
end

local function window(client)
    return math.min(CAP, BASE * 2 ^ client.failures)
end

local delay = {
    full = function(client) return random() * window(client) end,
    equal = function(client) return window(client) / 2 * (1 + random()) end,
    exponential = window,
    decorrelated = function(client)
        client.previous = math.min(CAP, BASE + random() * (client.previous * 3 - BASE))
        return client.previous
    end,
}

-- ---- a queue of events, by time ---------------------------------------------------------------------------

local function push(queue, at, client)
    local i = #queue + 1
    client.at = at
    while i > 1 do
        local parent = (i - i % 2) / 2
        if queue[parent].at <= at then break end
        queue[i] = queue[parent]
        i = parent
    end
    queue[i] = client
end

local function pop(queue)
    local first, last, count, i = queue[1], table.remove(queue), #queue, 1
    if count == 0 then return first end
    while 2 * i <= count do
        local child = 2 * i
        if child < count and queue[child + 1].at < queue[child].at then child = child + 1 end
        if queue[child].at >= last.at then break end
        queue[i] = queue[child]
        i = child
    end
    queue[i] = last
    return first
end

-- ---- one run ----------------------------------------------------------------------------------------------

-- What happens when a client's message arrives, named after the message; gives the delay of its next one,
-- or nil if it has written.
local function procedure(kind, row)
    local step = {}
    function step.read(client)
        client.version, client.message = row.version, "was read"
        return 0
    end
    step["was read"] = function(client)
        client.message = "write"
        return 0
    end
    function step.write(client)
        row.writes = row.writes + 1
        client.written, client.message = client.version == row.version, "was written"
        if client.written then row.version = row.version + 1 end
        return 0
    end
    step["was written"] = function(client)
        if client.written then return nil end
        client.failures, client.message = client.failures + 1, "read"
        return delay[kind](client)
    end
    return step
end

local function run(kind, count)
    local queue, row, now = {}, { version = 0, writes = 0 }, 0
    local step = procedure(kind, row)
    for _ = 1, count do push(queue, travel(), { message = "read", failures = 0, previous = BASE }) end
    while #queue > 0 do
        local client = pop(queue)
        now = client.at
        local wait = step[client.message](client)
        if wait then push(queue, now + wait + travel(), client) end
    end
    return row.writes, now
end

math.randomseed(1)
for _, kind in ipairs { "full", "equal", "decorrelated", "exponential" } do
    for _, count in ipairs { 10, 50, 100 } do
        local writes, time = 0, 0
        for _ = 1, RUNS do
            local w, t = run(kind, count)
            writes, time = writes + w, time + t
        end
        print(("%-13s %3d clients: %7.1f calls, done after %6.3f s"):format(kind, count, writes / RUNS,
            time / RUNS / 1000))
    end
end
