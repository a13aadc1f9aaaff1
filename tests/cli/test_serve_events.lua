-- /events of `weir serve`: figures once a second, and a log that nobody who comes back misses anything of.

local lu = require "luaunit"
local serving = require "serving"

local POLICY = [[return {
    name = "streamed", backends = { primary = "host=/nowhere" }, clients = { service = { bypass_rls = true } },
}]]

local server

-- An open stream: next() gives one message after the other, { id =, event =, data = }; comments have none of them.
local Stream = {}
Stream.__index = Stream

local function open(path, headers)
    local connection = server:connect()
    connection:send(serving.request(path or "/events", headers))
    local status = tonumber((connection:receive "*l"):match "^HTTP/1%.1 (%d+)")
    local self = setmetatable({ connection = connection, status = status, rest = "" }, Stream)
    for header in function() return connection:receive "*l" end do
        if header == "" then break end
        self.type = header:match "^Content%-Type: (.*)" or self.type
        self.chunked = self.chunked or header:lower():find "^transfer%-encoding: chunked" ~= nil
    end
    return self
end

function Stream:read_chunk()
    local size = tonumber(assert(self.connection:receive "*l"), 16)
    local chunk = assert(self.connection:receive(size))
    assert(self.connection:receive "*l")
    self.rest = self.rest .. chunk
    return size > 0
end

function Stream:next()
    while true do
        local text, rest = self.rest:match "^(.-)\n\n(.*)$"
        if text then
            self.rest = rest
            local message = { text = text }
            for line in text:gmatch "[^\n]+" do
                local field, value = line:match "^(%w+): ?(.*)$"
                if field then message[field] = value end
            end
            return message
        end
        if not self:read_chunk() then return nil end
    end
end

-- The next one for which what(message) holds.
function Stream:find(what)
    for _ = 1, 1000 do
        local message = assert(self:next(), "the stream has ended")
        if what(message) then return message end
    end
    error "no such message"
end

local function is_log(message)
    return message.event == "log"
end

local function is_state(message)
    return message.data and not message.event
end

function Stream:close()
    self.connection:close()
end

TestEvents = {}

function TestEvents.setUp()
    server = serving.serve(POLICY)
end

function TestEvents.tearDown()
    lu.assertEquals(server:stop(), 0)
end

function TestEvents.test_figures_come_at_once_and_then_each_second()
    local stream = open()
    lu.assertEquals({ stream.status, stream.type, stream.chunked }, { 200, "text/event-stream", true })
    lu.assertEquals(stream:next().retry, "2000")
    for _ = 1, 3 do
        local state = stream:find(is_state)
        lu.assertStrContains(state.data, [[{"stats":{"name":"streamed"]])
        lu.assertStrContains(state.data, [[,"calls":[]])
        lu.assertNil(state.id)
    end
    stream:close()
end

local function last_of_log()
    local last = 0
    for number in select(3, server:get "/events.json"):gmatch '"sequence":(%d+)' do last = tonumber(number) end
    return last
end

-- Makes the log longer.
local function happen()
    local before = last_of_log()
    server:signal "HUP"
    serving.wait(function() return last_of_log() > before end, "an event")
end

function TestEvents.test_the_log_goes_on_where_a_client_left_it()
    local stream = open()
    local seen, last = {}, nil
    happen()
    local all = last_of_log()
    repeat
        last = stream:find(is_log)
        seen[#seen + 1] = tonumber(last.id)
    until tonumber(last.id) >= all
    for i, id in ipairs(seen) do lu.assertEquals(id, i) end
    stream:close()
    happen()
    stream = open("/events", { ["Last-Event-ID"] = last.id })
    local id = tonumber(stream:find(is_log).id)
    lu.assertEquals(id, tonumber(last.id) + 1)
    stream:close()
end

function TestEvents.test_an_id_that_the_log_never_gave_begins_it_anew()
    for _, id in ipairs { "999999999", "nonsense", "-3", ("9"):rep(40) } do
        local stream = open("/events?state=0", { ["Last-Event-ID"] = id })
        lu.assertEquals(stream:find(is_log).id, "1")
        stream:close()
    end
end

function TestEvents.test_a_log_alone_has_no_figures_and_still_tells_what_happens()
    local stream, with_figures = open "/events?state=0", open()
    with_figures:find(is_state)
    with_figures:find(is_state)
    happen()
    local all = last_of_log()
    local message
    repeat
        message = assert(stream:next())
        lu.assertFalse(is_state(message) and true or false)
    until tonumber(message.id or 0) >= all
    stream:close()
    with_figures:close()
end

function TestEvents.test_streams_have_a_bound_and_room_is_made_when_one_ends()
    local streams = {}
    for i = 1, 40 do streams[i] = open "/events?state=0" end
    local open_ones = 0
    for _, stream in ipairs(streams) do open_ones = open_ones + (stream.status == 200 and 1 or 0) end
    lu.assertEquals(open_ones, 32)
    lu.assertEquals(streams[40].status, 503)
    for _, stream in ipairs(streams) do stream:close() end
    serving.wait(function()
        happen()
        local stream = open "/events?state=0"
        stream:close()
        return stream.status == 200
    end, "room")
end

function TestEvents.test_streams_end_with_the_server()
    local stream = open()
    stream:find(is_state)
    server:signal "TERM"
    lu.assertEquals(server:code(), 0)
    while stream:next() do lu.assertNotNil(stream) end
    stream:close()
end

os.exit(lu.LuaUnit.run())
