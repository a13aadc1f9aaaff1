--- The baseline: PostgreSQL as an OpenResty application speaks to it without Weir, over ngx_lua's cosockets,
-- whose keepalive is the pool. Written from the chapter "Frontend/Backend Protocol" of PostgreSQL's manual.
--
--     local pg, err = cosocket.connect { path = "/tmp/.s.PGSQL.5432", user = "app", database = "app" }
--     local rows, err = pg:query("select ...")
--     pg:keepalive(60000, 64)
--
-- It is meant to be hard to beat: one send and, for an answer of up to lua_socket_buffer_size, one receive
-- per query; no message is cut out of what was received before its fields are. Only what the bench needs is
-- there: no passwords, TLS, parameters, COPY, notifications.

local ngx = ngx -- luacheck: ignore

local new_table = require "table.new"

local byte, char, sub, find = string.byte, string.char, string.sub, string.find
local tonumber = tonumber

local tcp = ngx.socket.tcp

local cosocket = {}

local Connection = {}
Connection.__index = Connection

local PROTOCOL = char(0, 3, 0, 0)
local RECEIVE_MAX = 65536

-- ---- bytes ------------------------------------------------------------------------------------------------

local function int32_text(value)
    return char(math.floor(value / 16777216) % 256, math.floor(value / 65536) % 256,
        math.floor(value / 256) % 256, value % 256)
end

local function int32(data, at)
    local a, b, c, d = byte(data, at, at + 3)
    return a * 16777216 + b * 65536 + c * 256 + d
end

local function int16(data, at)
    local a, b = byte(data, at, at + 1)
    return a * 256 + b
end

-- ---- receiving --------------------------------------------------------------------------------------------

-- The stream is out of step or gone; what the server may still say on it belongs to nobody.
local function broken(self, why)
    self.sock:close()
    self.sock = nil
    return nil, why
end

-- Makes self.data hold `count` bytes from self.at on. What is missing of a long message is asked for by its
-- length, so that it is put together once.
local function fetch(self, count)
    local have = #self.data - self.at + 1
    local bytes, err
    if have < 5 then
        bytes, err = self.sock:receiveany(RECEIVE_MAX)
    else
        bytes, err = self.sock:receive(count - have)
    end
    if not bytes then return nil, err end
    self.data = have > 0 and sub(self.data, self.at) .. bytes or bytes
    self.at = 1
    if #self.data < count then return fetch(self, count) end
    return true
end

-- The next message: its type, where its body begins, and where the message after it does.
local function next_message(self)
    if #self.data - self.at < 4 then
        local ok, err = fetch(self, 5)
        if not ok then return nil, err end
    end
    local length = int32(self.data, self.at + 1) + 1
    if #self.data - self.at + 1 < length then
        local ok, err = fetch(self, length)
        if not ok then return nil, err end
    end
    local at = self.at
    self.at = at + length
    return byte(self.data, at), at + 5
end

-- ---- messages ---------------------------------------------------------------------------------------------

local function text(data, at)
    local zero = find(data, "\0", at, true)
    return sub(data, at, zero - 1), zero + 1
end

local numbers = {
    [20] = true, [21] = true, [23] = true, [26] = true, [700] = true, [701] = true, [1700] = true,
}
local BOOLEAN = 16

-- RowDescription: names and kinds of the columns. Kind 1 is a number, 2 a boolean, 0 stays text.
local function read_columns(data, at)
    local count = int16(data, at)
    local names, kinds = new_table(count, 0), new_table(count, 0)
    at = at + 2
    for i = 1, count do
        names[i], at = text(data, at)
        local oid = int32(data, at + 6)
        kinds[i] = numbers[oid] and 1 or oid == BOOLEAN and 2 or 0
        at = at + 18
    end
    return names, kinds
end

-- DataRow; NULL is the absence of a value.
local function read_row(data, at, names, kinds)
    local count = int16(data, at)
    local row = new_table(0, count)
    at = at + 2
    for i = 1, count do
        local length = int32(data, at)
        at = at + 4
        if length ~= 4294967295 then
            local kind = kinds[i]
            if kind == 0 then
                row[names[i]] = sub(data, at, at + length - 1)
            elseif kind == 1 then
                local value = sub(data, at, at + length - 1)
                row[names[i]] = tonumber(value) or value
            else
                row[names[i]] = byte(data, at) == 116
            end
            at = at + length
        end
    end
    return row
end

-- ErrorResponse: a sentence as psql prints it, and its fields.
local function read_error(data, at)
    local fields = {}
    local code = byte(data, at)
    while code ~= 0 do
        fields[char(code)], at = text(data, at + 1)
        code = byte(data, at)
    end
    return ("%s: %s (%s)"):format(fields.S or "ERROR", fields.M or "?", fields.C or "?"), fields
end

-- CommandComplete: what a statement without rows gives.
local function read_tag(data, at)
    local affected = tonumber((text(data, at):match "(%d+)$"))
    return affected and { affected_rows = affected } or true
end

-- Reads until the server is ready again. Of several statements in one text the last one counts, and so does
-- the first error.
local function read_answer(self)
    local result, names, kinds, rows, count, failure, fields
    while true do
        local kind, at = next_message(self)
        if not kind then return broken(self, at) end
        if kind == 68 then -- D
            count = count + 1
            rows[count] = read_row(self.data, at, names, kinds)
        elseif kind == 84 then -- T
            names, kinds = read_columns(self.data, at)
            rows, count = new_table(16, 0), 0
        elseif kind == 67 then -- C
            result, rows = rows or read_tag(self.data, at), nil
        elseif kind == 90 then -- Z
            self.state = byte(self.data, at)
            if failure then return nil, failure, fields end
            return result or true
        elseif kind == 69 then -- E
            failure, fields = read_error(self.data, at)
            if fields.S == "FATAL" or fields.S == "PANIC" then return broken(self, failure) end
        elseif kind == 82 then -- R
            if int32(self.data, at) ~= 0 then return broken(self, "the server wants a password") end
        elseif kind == 71 or kind == 72 or kind == 87 then -- G, H, W
            return broken(self, "COPY is not spoken here")
        end
    end
end

-- ---- the interface ----------------------------------------------------------------------------------------

local function greet(self, options)
    local settings = "user\0" .. options.user .. "\0database\0" .. options.database .. "\0\0"
    local sent, err = self.sock:send { int32_text(#settings + 8), PROTOCOL, settings }
    if not sent then return broken(self, err) end
    local ok, why = read_answer(self)
    if not ok then return nil, why end
    return self
end

--- A connection out of the pool, or a new one.
-- @param options  path of the socket, user, database, timeout in milliseconds
function cosocket.connect(options)
    local sock = tcp()
    sock:settimeout(options.timeout or 10000)
    local ok, err = sock:connect("unix:" .. options.path, options.pool)
    if not ok then return nil, err end
    local self = setmetatable({ sock = sock, data = "", at = 1, state = 73 }, Connection)
    if sock:getreusedtimes() > 0 then return self end
    return greet(self, options)
end

--- Rows as tables by name, { affected_rows = n }, or true; nil, a sentence and its fields if the server
-- objects.
function Connection:query(sql)
    if not self.sock then return nil, "closed" end
    local sent, err = self.sock:send { "Q", int32_text(#sql + 5), sql, "\0" }
    if not sent then return broken(self, err) end
    return read_answer(self)
end

--- Back into the pool; closed instead if it is in a transaction or has something unread.
function Connection:keepalive(milliseconds, size)
    local sock = self.sock
    if not sock then return nil, "closed" end
    self.sock = nil
    if self.state ~= 73 or self.at <= #self.data then return sock:close() end
    return sock:setkeepalive(milliseconds, size)
end

function Connection:close()
    if not self.sock then return true end
    self.sock:send("X" .. int32_text(4))
    self.sock:close()
    self.sock = nil
    return true
end

return cosocket
